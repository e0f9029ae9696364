"""Training runs in processes of their own, forked from one that has imported everything: quick to start.

They are real processes: they are killed by SIGKILL, and talk to each other through gloo.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from contextlib import suppress
from pathlib import Path

from train.options import TrainOptions

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["train.run", "training_processes"])


class Run:
    """A run that can be watched and killed."""

    def __init__(self, told, outdir, **environment):
        self.lines, line_out = SERVER.Pipe(duplex=False)
        self.process = SERVER.Process(target=_train, args=(told, outdir, environment, line_out))
        self.process.start()
        line_out.close()

    def line(self):
        """The next line it says; None when it has ended."""
        with suppress(EOFError, ConnectionResetError):
            return self.lines.recv()
        return None

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.join()
        self.lines.close()

    def end(self):
        """Wait for it; returns what it said and how it ended."""
        said = list(iter(self.line, None))
        self.process.join()
        self.lines.close()
        return said, self.process.exitcode


def together(world, told, outdir):
    """A run of several processes, as a launcher starts them; returns what each said and how it ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"LOCAL_WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    runs = [Run(told, outdir, **shared, **rank) for rank in ranks]
    return [run.end() for run in runs]


def _train(told, outdir, environment, lines):
    os.environ.update(environment)
    from train.run import train

    train(TrainOptions(**told), Path(outdir), say=lines.send)
