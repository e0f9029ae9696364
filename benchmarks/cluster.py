"""What a second worker brings, what a task costs, and how many messages the scheduler handles for it.

    python benchmarks/cluster.py [--rasters 12] [--side 4096] [--markdown FILE]

Archives are segmented by ``tiler batch --scheduler local:N --threads 1``, a scene by ``tiler segment`` with
the same options: one thread per worker. The demo's network is so small that reading, storing and finishing
show; with a U-Net of usual width, untrained, the time goes into the network. Each command is run in a process
of its own and timed from its start to its end, start of the workers included.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import describe
from scenes import make_scene

from tiler.cluster.client import Cluster
from tiler.cluster.connection import own_workers
from tiler.cluster.scheduler import Scheduler
from tiler.demo import MODEL
from tiler.events import ignore
from tiler.spec import ModelSpec, default_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = (1, 2)
WIDTHS = (32, 64)
"""Of the first block of wider networks: usual, and the paper's."""


@dataclass(frozen=True, slots=True)
class Load:
    """Rasters to be segmented by one command."""

    name: str
    model: Path
    rasters: int
    side: int
    """Of each, pixels."""

    def make(self, folder: Path) -> None:
        """Write the rasters, which are alike."""
        folder.mkdir()
        make_scene(folder / "00.tif", self.side)
        for number in range(1, self.rasters):
            shutil.copy(folder / "00.tif", folder / f"{number:02}.tif")

    def line(self, folder: Path, out: Path) -> list[Any]:
        """The command without its options."""
        if self.rasters == 1:
            return ["segment", folder / "00.tif", self.model, out / "00.tif"]
        return ["batch", self.model, out, folder]


def wide_network(path: Path, width: int) -> Path:
    """Write a U-Net, which costs untrained what it costs trained."""
    from export.onnx import write_graph
    from train.models.options import UNetOptions
    from train.models.unet import UNet

    net = UNet(UNetOptions(3, 2, width=width))
    bands, classes = ("r", "g", "b"), default_classes(("a", "b"))
    geometry = {"stride": net.stride, "halo": net.halo, "exact": net.exact}
    write_graph(net, ModelSpec(bands, classes, scale=(1 / 255,) * 3, **geometry), path)
    return path


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the scheduler does for tasks that do nothing."""

    tasks: int
    seconds: float
    received: int
    """Messages from workers and client."""
    sent: int

    @property
    def messages(self) -> float:
        """Per task, both ways."""
        return (self.received + self.sent) / self.tasks


def nothing(number: int) -> int:
    """A task without work."""
    return number


def traffic(tasks: int, workers: int = 2) -> Traffic:
    """Send tasks that do nothing the way that a run's are sent, and count what passes the scheduler."""
    from distributed import Client

    with own_workers(workers) as place, Client(place, set_as_default=False) as client:
        cluster = Cluster(Scheduler("", workers), ignore, False, client)
        list(cluster.results(nothing, range(100)))
        counts = {"received": 0, "sent": 0}
        count(place.scheduler, counts)
        start = time.perf_counter()
        answers = sum(1 for _ in cluster.results(nothing, range(tasks)))
        seconds = time.perf_counter() - start
    if answers != tasks:
        raise RuntimeError(f"{tasks} tasks were sent, {answers} answered")
    return Traffic(tasks, seconds, **counts)


def count(scheduler: Any, counts: dict[str, int]) -> None:  # noqa: ANN401 - Dask has no types
    """Count what its streams bring and what it puts on them from now on."""

    def counted(handler: Any) -> Any:  # noqa: ANN401
        def handle(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            counts["received"] += 1
            return handler(*arguments, **named)

        async def handle_later(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            counts["received"] += 1
            return await handler(*arguments, **named)

        # Dask looks at the function to know which it is.
        return handle_later if inspect.iscoroutinefunction(handler) else handle

    def counting(comm: Any) -> Any:  # noqa: ANN401
        send = comm.send

        def sent(*messages: Any) -> None:  # noqa: ANN401
            counts["sent"] += len(messages)
            send(*messages)

        return sent

    for operation, handler in list(scheduler.stream_handlers.items()):
        scheduler.stream_handlers[operation] = counted(handler)
    for comm in [*scheduler.stream_comms.values(), *scheduler.client_comms.values()]:
        comm.send = counting(comm)


def timed(line: list[Any]) -> float:
    """Seconds of a command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tiler", *map(str, line), "--quiet"], check=True)
    return time.perf_counter() - start


def run(load: Load, workers: int, folder: Path) -> tuple[float, str]:
    """Seconds for a load, and a hash of what was made."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    options = ["--threads", "1", "--resolution", "native", "--scheduler", f"local:{workers}"]
    seconds = timed([*load.line(folder / "rasters", out), *options])
    digest = hashlib.sha256()
    for path in sorted(out.glob("*.tif")):
        digest.update(path.read_bytes())
    return seconds, digest.hexdigest()


def page(options: argparse.Namespace, rows: list[str], measured: Traffic) -> str:
    """The tables."""
    told = f"--rasters {options.rasters} --side {options.side} --repeats {options.repeats}"
    what = (
        "Archives by `tiler batch`, a scene by `tiler segment`; one thread per worker, from the start of the "
        "command to its end. The bytes that one worker makes are those that two make."
    )
    head = [
        "# Workers of a cluster",
        "",
        f"`python benchmarks/cluster.py {told}`, {datetime.now(UTC).date()}, {describe()}. Medians.",
        "",
        what,
        "",
        "| what | network | 1 worker, s | 2 workers, s | ratio |",
        "|---|---|--:|--:|--:|",
        *rows,
        "",
        f"{measured.tasks} tasks that do nothing, sent as those of a run are, on two workers:",
        "",
        "| | |",
        "|---|--:|",
        f"| tasks per second | {measured.tasks / measured.seconds:,.0f} |",
        f"| ms per task | {1000 * measured.seconds / measured.tasks:.2f} |",
        f"| messages to the scheduler per task | {measured.received / measured.tasks:.2f} |",
        f"| messages from it per task | {measured.sent / measured.tasks:.2f} |",
    ]
    return "\n".join(head) + "\n"


def loads(rasters: int, side: int, folder: Path) -> Iterator[Load]:
    """The rows of the table: tasks of seconds each."""
    # A quarter of the side where a pixel costs sixteen or sixty times as much.
    small = side // 4
    for width, number in zip(WIDTHS, (6 * rasters, 2 * rasters), strict=True):
        network = wide_network(folder / f"width {width}.onnx", width)
        yield Load(f"{number} rasters of {small} x {small} px", network, number, small)
    yield Load(f"{rasters} rasters of {side} x {side} px", MODEL, rasters, side)
    whole = round(side * rasters**0.5)
    yield Load(f"a scene of {whole} x {whole} px", MODEL, 1, whole)


def compare(load: Load, repeats: int) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load.make(folder / "rasters")
        runs = {workers: [run(load, workers, folder) for _ in range(repeats)] for workers in WORKERS}
    if len({digest for made in runs.values() for _, digest in made}) != 1:
        raise RuntimeError(f"{load.name} differs with the number of workers")
    one, two = (statistics.median(seconds for seconds, _ in runs[workers]) for workers in WORKERS)
    print(f"{load.name}, {load.model.stem}: {one:.1f} s, {two:.1f} s", flush=True)
    return f"| {load.name} | {load.model.stem} | {one:.1f} | {two:.1f} | {one / two:.2f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rasters", type=int, default=12)
    parser.add_argument("--side", type=int, default=4096, help="of each, pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=5000, help="that do nothing")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [compare(load, options.repeats) for load in loads(options.rasters, options.side, Path(name))]
    text = page(options, rows, traffic(options.tasks))
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
