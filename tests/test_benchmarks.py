"""The pure parts of the comparison with other tools. What it measures is not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Scripts import each other by their folder, as when they are run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def make_page(**changes):
    """Three tools on 1000 x 1000 px: ours takes 2 s, the loop 1 s, MONAI 4 s."""
    from contestants import cases
    from peers_page import Measured, Page

    known = {case.title: case for case in cases(512, None, int8=False)}
    measured = []
    for title, seconds, peak in (
        ("gigatiler, exact", (2.0, 9.0, 1.0), 2 * 10**9),
        ("plain ONNX Runtime loop", (1.0,), 10**9),
        ("MONAI", (4.0,), 3 * 10**9),
    ):
        found = Measured(known[title])
        found.runs += [
            {
                "seconds": s,
                "peak_memory": peak,
                "baseline_memory": 10**8,
                "start_up_seconds": 1.5,
                "versions": {"numpy": "2"},
                "notes": [],
                "labels": "/somewhere",
            }
            for s in seconds
        ]
        measured.append(found)
    given = {"machine": "m", "date": "d", "command": "c", "side": 1000, "checked": 900, "repeats": 3}
    return Page(**{**given, "threads": 2, "tile": 512, "batch": 4, "measured": measured, **changes})


def test_the_median_counts_and_the_fastest_comes_first():
    page = make_page()
    assert [m.seconds for m in page.ranked] == [1.0, 2.0, 4.0]
    assert page.ranked[1].case.title == "gigatiler, exact"


def test_times_are_told_as_multiples_of_ours_and_of_the_floor():
    from peers_page import speed_table

    head, _, *rows = speed_table(make_page())
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    cells = {row.split("|")[1].strip(): [c.strip() for c in row.strip("|").split("|")] for row in rows}
    for name, ours, floor in (("MONAI", "2.00", "4.00"), ("plain ONNX Runtime loop", "0.50", "1.00")):
        assert cells[name][columns.index("time / ours, exact")] == ours
        assert cells[name][columns.index("time / ONNX Runtime loop")] == floor
    assert cells["**gigatiler, exact**"][columns.index("Mpx/s")] == "0.5"
    assert cells["**gigatiler, exact**"][columns.index("slowest to fastest")] == "0.111 to 1"


def test_losses_are_told_as_well_as_wins():
    from peers_page import verdicts

    text = "\n".join(verdicts(make_page()))
    assert "Faster than gigatiler, exact: plain ONNX Runtime loop. Slower: MONAI." in text
    assert "Less memory at its peak: plain ONNX Runtime loop. More: MONAI." in text


def test_a_tool_that_failed_is_on_the_page_with_its_reason():
    from contestants import MONAI, Case
    from peers_page import Measured, markdown

    broken = Measured(Case("broken", MONAI, 128, "25 %"), failures=["labels of scene: no such thing"])
    text = markdown(make_page(measured=[broken]), "chart.png")
    assert "- broken, labels of scene: no such thing" in text
    assert "(never ran)" in text
    assert "![Speed and memory](chart.png)" in text


def test_the_figures_for_programs_hold_no_paths():
    text = json.dumps(make_page().to_dict())
    assert "/somewhere" not in text
    assert json.loads(text)["cases"][2]["runs"][0]["seconds"] == 4.0


def test_every_tool_has_a_runner_and_a_pinned_version():
    from contestants import RUNNERS, cases

    for case in cases(512, 1e-3, int8=True):
        assert (RUNNERS / case.peer.runner).is_file()
        named = [package for call in case.peer.installs for package in call]
        assert not named or any(case.peer.key in p and "==" in p for p in named), case.peer
    assert len({case.title for case in cases(512, 1e-3, int8=True)}) == 17


@pytest.mark.parametrize(
    ("code", "out", "err", "expected"),
    [
        (0, 'banner\n{"seconds": 1}\n', "", {"seconds": 1}),
        (1, "", "Traceback\nValueError: too much\n", "exit code 1: ValueError: too much"),
        (-9, "", "", "ended by signal 9"),
        (0, "", "", "exit code 0: no word"),
    ],
)
def test_a_runner_tells_a_result_or_a_reason(code, out, err, expected):
    from peers import RunError, result_of

    done = subprocess.CompletedProcess([], code, out, err)
    if isinstance(expected, dict):
        assert result_of(done) == expected
    else:
        with pytest.raises(RunError, match=expected):
            result_of(done)


def test_the_plain_loop_covers_every_pixel():
    from runner import windows

    seen_HW = np.zeros((130, 100), int)
    for top, left in windows(130, 100, 64):
        seen_HW[top : top + 64, left : left + 64] += 1
    assert seen_HW.min() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="runners are for Linux")
def test_memory_is_told_in_bytes():
    from runner import status

    assert 10**6 < status("VmRSS") <= status("VmHWM")
