"""Training runs in processes of their own, forked from one that has imported everything: quick to start.

They are real processes: they are killed by SIGKILL, and talk to each other through gloo.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from tiler.errors import TilerError
from train.options import TrainOptions

SERVER = multiprocessing.get_context("forkserver")
# The last two are what a run imports when it begins and when it draws.
SERVER.set_forkserver_preload(["train.run", "training_processes", "torch._dynamo", "matplotlib.figure"])


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


def program(words, folder):
    """``python -m train`` with these words, in a process of its own; what it prints goes to two files."""
    process = SERVER.Process(target=_program, args=(words, folder))
    process.start()
    return process


def wait_for(path, text):
    """Until a file holds that."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {text!r} in {path}")


def free_port():
    """One that nobody listens at just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def together(world, told, outdir):
    """A run of several processes; returns what each said and how it ended."""
    return [run.end() for run in start_together(world, told, outdir)]


def start_together(world, told, outdir, more=({}, {})):
    """A run of several processes, as a launcher starts them, each with some options more."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared |= {"LOCAL_WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [Run({**told, **mine}, outdir, **shared, **rank) for rank, mine in zip(ranks, more, strict=True)]


def _program(words, folder):
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["train", *words]
    runpy.run_module("train", run_name="__main__")


def _train(told, outdir, environment, lines):
    os.environ.update(environment)
    from train.run import train

    try:
        train(TrainOptions(**told), Path(outdir), say=lines.send)
    except TilerError as error:
        lines.send(f"{type(error).__name__}: {error}")
        sys.exit(1)
