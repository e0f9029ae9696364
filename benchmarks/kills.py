"""Kill runs with SIGKILL at random moments, run them again until they are done, compare the outputs.

    python benchmarks/kills.py [--kills 25] [--seed 0] [--markdown FILE]

In each of {exact, blended} x {one process, two shards} a run is killed that many times: a third of the
kills inside finish (from the ``Finishing`` event of the JSON log on), the others anywhere between the start
of the process and the end. After each kill the same command is run until the output is there; its SHA-256
must be that of the run that nobody killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from scenes import make_scene

from tiler.demo import MODEL

MODES = {
    "exact": ["--blend", "exact", "--tile", "512"],
    "blended": ["--blend", "hann", "--tile", "512", "--overlap", "128"],
}
SHARDS = {"one process": [[]], "two shards": [["--shard", "1/2"], ["--shard", "2/2"]]}
FINISH_SHARE = 3
"""One kill in this many falls into finish."""
PATIENCE = 300


@dataclass(slots=True)
class Tally:
    """What became of the kills of one kind of run."""

    mode: str
    processes: str
    kills: int = 0
    inside: Counter[str] = field(default_factory=Counter)
    """How many fell into which stage: what the last event said."""
    reruns: int = 0
    equal: int = 0


class Run:
    """One process of ``tiler segment``, and what it says."""

    def __init__(self, scene: Path, output: Path, options: list[str]) -> None:
        command = [sys.executable, "-m", "tiler", "segment", scene, MODEL, output, *options]
        fixed = ["--resolution", "native", "--output", "both", "--log", "json"]
        self.events: list[str] = []
        self.seconds: dict[str, float] = {}
        """When the first event of each kind came, from the start of the process."""
        self.last = ""
        self.finishing = threading.Event()
        self.begun = time.perf_counter()
        self.process = subprocess.Popen([*command, *fixed], stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - it is a pipe
        for line in self.process.stderr:
            self.last = line
            if line.startswith("{"):
                self.events.append(json.loads(line)["event"])
                self.seconds.setdefault(self.events[-1], time.perf_counter() - self.begun)
            if self.events[-1:] == ["Finishing"]:
                self.finishing.set()
        self.finishing.set()

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        self.process.stderr.close()
        return code

    def kill(self) -> str:
        """Kill it; the stage it was in."""
        self.process.kill()
        self.wait()
        return {"": "starting", "Noted": "planned", "Planned": "planned", "BlockStored": "computing"}.get(
            said := self.events[-1] if self.events else "", said.lower()
        )


def complete(scene: Path, output: Path, mode: str, processes: str) -> int:
    """Run until the output is there; how many times that took."""
    for attempt in range(1, 5):
        runs = [Run(scene, output, [*MODES[mode], *shard]) for shard in SHARDS[processes]]
        for run in runs:
            if run.wait() != 0:
                raise RuntimeError(f"a run ended badly: {run.last}")
        if output.exists():
            return attempt
    raise RuntimeError(f"{output} is not there after {attempt} runs")


def durations(scene: Path, output: Path, mode: str) -> tuple[float, float]:
    """Seconds of a whole run, and of its finish."""
    run = Run(scene, output, MODES[mode])
    if run.wait() != 0:
        raise RuntimeError(f"a run ended badly: {run.last}")
    return run.seconds["Finished"], run.seconds["Finished"] - run.seconds["Finishing"]


def kill_once(scene: Path, output: Path, tally: Tally, moment: float, finish: bool) -> None:
    """Start, kill one process at a moment, and count where that was."""
    runs = [Run(scene, output, [*MODES[tally.mode], *shard]) for shard in SHARDS[tally.processes]]
    if finish:
        finisher = wait_for_finish(runs)
        time.sleep(moment)
        tally.inside[finisher.kill()] += 1
    else:
        time.sleep(moment)
        tally.inside[random.choice(runs).kill()] += 1  # noqa: S311 - seeded on purpose
    for run in runs:
        run.wait()
    tally.kills += 1


def wait_for_finish(runs: list[Run]) -> Run:
    """The process that finishes; it is the one that says so."""
    while True:
        for run in runs:
            if run.finishing.is_set() and "Finishing" in run.events:
                return run
        if all(run.process.poll() is not None for run in runs):
            return runs[0]
        time.sleep(0.002)


def measure(scene: Path, folder: Path, mode: str, kills: int) -> list[Tally]:
    """One mode, in one process and in two."""
    whole, finish = durations(scene, folder / "whole.tif", mode)
    expected = sha256(folder / "whole.tif")
    print(f"{mode}: {whole:.1f} s, finish {finish:.2f} s", flush=True)
    tallies = []
    for processes in SHARDS:
        tally = Tally(mode, processes)
        for number in range(kills):
            output = folder / "out.tif"
            inside = number % FINISH_SHARE == 0
            moment = random.uniform(0, finish if inside else whole)  # noqa: S311 - seeded on purpose
            kill_once(scene, output, tally, moment, inside)
            tally.reruns += complete(scene, output, mode, processes)
            tally.equal += sha256(output) == expected and not list(folder.glob("*.run*"))
            clear(folder, "out.*")
        print(tally, flush=True)
        tallies.append(tally)
    clear(folder, "whole.*")
    return tallies


def clear(folder: Path, pattern: str) -> None:
    """Remove what a run left."""
    for path in folder.glob(pattern):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def sha256(path: Path) -> str:
    """Of the labels and the probabilities, hexadecimal."""
    files = (path, path.with_suffix(".probabilities.tif"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def markdown(tallies: list[Tally], how: str) -> str:
    """The table, and how it was made."""
    stages = ("starting", "planned", "computing", "finishing", "publishing", "finished")
    lines = [
        "# Runs killed and run again",
        "",
        f"{how}, {datetime.now(UTC).date()}.",
        "Each run was killed with SIGKILL at a random moment, then run again until it was done.",
        "The columns in the middle say what the killed process had said last.",
        "",
        f"| mode | processes | kills | {' | '.join(stages)} | reruns | equal SHA-256 |",
        "|---|---|" + "--:|" * (len(stages) + 3),
    ]
    lines += [
        f"| {t.mode} | {t.processes} | {t.kills} | {' | '.join(str(t.inside[stage]) for stage in stages)} "
        f"| {t.reruns} | {t.equal} of {t.kills} |"
        for t in tallies
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Kill, compare and print; 1 if any output differed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="per mode and number of processes")
    parser.add_argument("--side", type=int, default=3000, help="of the scene, pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        scene = Path(name) / "scene.tif"
        make_scene(scene, options.side)
        tallies = [t for mode in MODES for t in measure(scene, Path(name), mode, options.kills)]
    how = (
        f"`python benchmarks/kills.py --kills {options.kills} --seed {options.seed}`, "
        f"{options.side} x {options.side} px, {MODEL.name}"
    )
    table = markdown(tallies, how)
    if options.markdown:
        options.markdown.write_text(table)
    print(table)
    return int(any(t.equal < t.kills for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
