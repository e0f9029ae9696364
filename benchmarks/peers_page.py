"""The page of `peers.py`: tables, wins and losses, notes, and a chart. Nothing here measures."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any

from contestants import RUNTIME, TORCH

from tiler.memory import in_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contestants import Case

OURS = "gigatiler, exact"
"""What the others are compared with."""
NONE = "-"


@dataclass(slots=True)
class Measured:
    """What was found about one case; filled run by run."""

    case: Case
    runs: list[dict[str, Any]] = field(default_factory=list)
    """On real pixels."""
    free: dict[int, dict[str, Any]] = field(default_factory=dict)
    """With a free network, by side."""
    failures: list[str] = field(default_factory=list)
    labels: Path | None = None
    """Of the first run."""
    differing: float | None = None
    """Percent of pixels with another label than whole-image inference."""
    constant_error: float | None = None

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return median(run["seconds"] for run in self.runs)

    @property
    def network_share(self) -> float | None:
        """Percent of the time that the network was busy, median; None of tools that do not say it."""
        said = [run for run in self.runs if "network_seconds" in run]
        return median(100 * run["network_seconds"] / run["seconds"] for run in said) if said else None

    @property
    def peak(self) -> int:
        """Largest of the runs."""
        return max(run["peak_memory"] for run in self.runs)


@dataclass(frozen=True, slots=True)
class Page:
    """All figures, and how they came about."""

    machine: str
    date: str
    command: str
    side: int
    checked: int
    """Side of the square whose labels were compared."""
    repeats: int
    threads: int
    tile: int
    batch: int
    measured: list[Measured]

    @property
    def ranked(self) -> list[Measured]:
        """Those that ran, fastest first."""
        return sorted((m for m in self.measured if m.runs), key=lambda m: m.seconds)

    def find(self, title: str) -> Measured | None:
        """A case that ran."""
        return next((m for m in self.measured if m.runs and m.case.title == title), None)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for programs."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "measured"}
        return {**plain, "cases": [case_to_dict(m) for m in self.measured]}


def case_to_dict(measured: Measured) -> dict[str, Any]:
    """Plain values, without paths, which mean nothing afterwards."""

    def kept(run: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in run.items() if key != "labels"}

    return {
        "name": measured.case.title,
        "overlap": measured.case.overlap,
        "runs": [kept(run) for run in measured.runs],
        "free": {side: kept(run) for side, run in measured.free.items()},
        "differing_percent": measured.differing,
        "constant_error": measured.constant_error,
        "failures": measured.failures,
    }


def speed(side: int, seconds: float) -> float:
    """Mpx/s.

    >>> speed(1000, 2.0)
    0.5
    """
    return side * side / 1e6 / seconds


def figures(value: float) -> str:
    """Three significant digits, never as a power of ten.

    >>> figures(0.7123), figures(12.34), figures(525.4)
    ('0.712', '12.3', '525')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Of pixels; none at all is told from few.

    >>> percent(0.0), percent(0.00123), percent(12.3456), percent(100.0), percent(None)
    ('0', '0.0012', '12', '100', '-')
    """
    if value is None:
        return NONE
    return "0" if value == 0 else figures(float(f"{value:.2g}"))


def table(head: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """Markdown; the first ``left`` columns are text, the others numbers.

    >>> table(["a", "b"], [["x", "1"]])
    ['| a | b |', '|---|--:|', '| x | 1 |']
    """
    rule = "|" + "---|" * left + "--:|" * (len(head) - left)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def speed_table(page: Page) -> list[str]:
    """Real pixels, fastest first."""
    ours, floor = page.find(OURS), page.find("plain ONNX Runtime loop")
    head = ["tool", "licence", "runtime", "overlap", "ends with", "runs", "Mpx/s", "slowest to fastest"]
    head += ["time / ours, exact", "time / ONNX Runtime loop", "network, % of time", "peak memory"]
    head += ["of it before the start", "start, s", "labels differ, %", "constant off by"]
    rows = []
    for m in page.ranked:
        speeds = [speed(page.side, run["seconds"]) for run in m.runs]
        name = f"**{m.case.title}**" if m.case.peer.ours else m.case.title
        rows.append(
            [
                name,
                m.case.peer.licence,
                m.case.peer.runtime,
                m.case.overlap_words,
                m.case.peer.writes,
                str(len(m.runs)),
                figures(speed(page.side, m.seconds)),
                f"{figures(min(speeds))} to {figures(max(speeds))}",
                f"{m.seconds / ours.seconds:.2f}" if ours else NONE,
                f"{m.seconds / floor.seconds:.2f}" if floor else NONE,
                NONE if m.network_share is None else f"{m.network_share:.1f}",
                in_words(m.peak),
                in_words(median(run["baseline_memory"] for run in m.runs)),
                f"{median(run['start_up_seconds'] for run in m.runs):.1f}",
                percent(m.differing),
                NONE if m.constant_error is None else f"{m.constant_error:.1e}",
            ]
        )
    return table(head, rows, left=5)


def runtime_sentence(page: Page) -> list[str]:
    """What the runtime alone brings, which is not ours to claim."""
    floor = page.find("plain ONNX Runtime loop")
    loops = [m for m in page.ranked if m.case.peer.runtime == TORCH and m.case.peer.key == "floor"]
    if floor is None or not loops:
        return []
    best = loops[0]
    share = floor.seconds / best.seconds
    sentence = (
        f"The runtime alone: the plain loop in {RUNTIME} takes {share:.2f} of the time of the fastest one in "
        f"{TORCH} ({best.case.title}). That factor is in every comparison of a row that says {RUNTIME} with "
        f"one that says {TORCH}, and is not ours."
    )
    return [sentence, ""]


def free_table(page: Page) -> list[str]:
    """The engine alone: memory and speed by size."""
    sides = sorted({side for m in page.measured for side in m.free})
    if not sides:
        return []
    entries = sorted(
        (m for m in page.measured if m.free),
        key=lambda m: (-max(m.free), m.free[max(m.free)]["peak_memory"]),
    )
    head = ["tool", *(f"peak at {side}²" for side in sides), *(f"Mpx/s at {side}²" for side in sides)]
    rows = [
        [
            m.case.title,
            *(in_words(m.free[s]["peak_memory"]) if s in m.free else NONE for s in sides),
            *(figures(speed(s, m.free[s]["seconds"])) if s in m.free else NONE for s in sides),
        ]
        for m in entries
    ]
    return [
        "## The engine alone, and its memory by size of scene",
        "",
        "The network is one 1x1 convolution to two classes, so what is left is the tool. One run each.",
        "",
        *table(head, rows),
        "",
    ]


def named(entries: list[Measured]) -> str:
    """Their names."""
    return "; ".join(m.case.title for m in entries) or "nobody"


def sides(better: str, worse: str, entries: list[Measured], test: Callable[[Measured], bool]) -> str:
    """One line on who is better than we are, and who is worse."""
    won, lost = [m for m in entries if test(m)], [m for m in entries if not test(m)]
    return f"- {better}: {named(won)}. {worse}: {named(lost)}."


def verdicts(page: Page) -> list[str]:
    """Where we win and where we lose, worked out from the tables."""
    ours = page.find(OURS)
    if ours is None:
        return []
    others = [m for m in page.ranked if not m.case.peer.ours]

    lines = [
        sides(f"Faster than {OURS}", "Slower", others, lambda m: m.seconds < ours.seconds),
        sides("Less memory at its peak", "More", others, lambda m: m.peak < ours.peak),
    ]
    for blended in (m for m in page.ranked if m.case.peer.ours and m.case.overlap):
        alike = [m for m in others if m.case.overlap == blended.case.overlap]
        if alike:
            head = f"With as much overlap, faster than {blended.case.title}"
            lines.append(sides(head, "Slower", alike, lambda m, than=blended.seconds: m.seconds < than))
    known = [m for m in page.ranked if m.differing is not None]
    best = min((m.differing or 0.0 for m in known), default=0.0)
    lines.append(f"- Closest to whole-image inference: {named([m for m in known if m.differing == best])}.")
    return ["## Wins and losses", "", *lines, ""]


def notes(page: Page) -> list[str]:
    """What each does otherwise, and with which versions."""
    lines = ["## Notes", ""]
    told: set[str] = set()
    for m in page.measured:
        if m.case.peer.title in told:
            continue
        told.add(m.case.peer.title)
        runs = m.runs or list(m.free.values())
        versions = ", ".join(f"{k} {v}" for k, v in (runs[0]["versions"] if runs else {}).items())
        said = " ".join([m.case.peer.note, *(f"{note}." for note in (runs[0]["notes"] if runs else []))])
        lines.append(f"- **{m.case.peer.title}**: {said} ({versions or 'never ran'})")
    return [*lines, ""]


def failures(page: Page) -> list[str]:
    """Who did not run, and why."""
    lines = [f"- {m.case.title}, {reason}" for m in page.measured for reason in m.failures]
    return ["## What failed", "", *lines, ""] if lines else []


def conditions(page: Page) -> str:
    """What was the same for all, and what the columns mean."""
    return (
        f"{page.side} x {page.side} px, three bands of uint8; {page.threads} threads on as many cores; tiles "
        f"of {page.tile} px, batch {page.batch} where a tool takes one; the same weights for all. Runs of a "
        f"tool: up to {page.repeats}, interleaved, each in a new process; Mpx/s is the median. The time "
        "is from the first read to labels in memory, or on disk where the tool writes; start (imports, "
        "network) is apart. Ours has a budget of 4 GB. *Labels differ*: from whole-image inference, on the "
        "top left "
        f"{page.checked} x {page.checked} px. *Constant off by*: a network that returns a constant is "
        "blended, and this is the largest error of a score."
    )


def markdown(page: Page, picture: str | None) -> str:
    """The whole page."""
    lines = [
        "# Beside other tools",
        "",
        f"`{page.command}`, {page.date}, on {page.machine}.",
        "",
        conditions(page),
        "",
        *([f"![Speed and memory]({picture})", ""] if picture else []),
        *speed_table(page),
        "",
        *runtime_sentence(page),
        *verdicts(page),
        *free_table(page),
        *notes(page),
        *failures(page),
    ]
    return "\n".join(lines).rstrip() + "\n"


def chart(page: Page, path: Path) -> None:
    """Bars: speed, and peak memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    entries = page.ranked[::-1]
    names = [m.case.title for m in entries]
    colours = [colour(m.case) for m in entries]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1 + 0.34 * len(entries)), sharey=True)
    bars = left.barh(names, [speed(page.side, m.seconds) for m in entries], color=colours)
    left.bar_label(bars, [figures(speed(page.side, m.seconds)) for m in entries], padding=3)
    left.set_title("Mpx/s, more is better")
    bars = right.barh(names, [m.peak / 1e9 for m in entries], color=colours)
    right.bar_label(bars, [in_words(m.peak) for m in entries], padding=3)
    right.set_title("Peak memory, GB, less is better")
    for axes in (left, right):
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{page.side} x {page.side} px, {page.threads} threads")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def colour(case: Case) -> str:
    """Ours, floors, peers."""
    if case.peer.ours:
        return "#1f6f8b"
    return "#b5b5b5" if case.peer.key == "floor" else "#d98e4a"
