"""Archives: everything attempted, every failure told, nothing computed twice, stopped at any moment."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import archives
import networks
import slides
from refusals import refused
from tiler.batch import task as task_module
from tiler.batch.here import Here
from tiler.batch.items import find_items
from tiler.batch.pace import Pace
from tiler.batch.processes import Processes, Worker, devices, shared_out
from tiler.batch.record import ENDED, PENDING, STOPPED, Record
from tiler.batch.run import Batch, run_batch
from tiler.batch.task import FAILED, Outcome, Task, failure
from tiler.cli.board import Silent
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.errors import InputError, OtherRunError, OutputError, TilerError, UsageError
from tiler.events import Planned
from tiler.options import RunOptions
from tiler.outputs import Outputs

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # as the command does
BATCH = [sys.executable, "-m", "tiler", "batch"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The archive, a network, and what becomes of the archive when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("batch")
    archives.make_archive(folder / "archive")
    networks.pixelwise(folder / "net.onnx", seed=3)
    assert run(folder, folder / "whole") == 1
    return folder


def run(place, out, *more) -> int:
    """The command in this process."""
    return run_command(command, arguments(place, out, *more))


def arguments(place, out, *more) -> list[str]:
    given = [str(m) for m in more]
    sources = [] if given and not given[0].startswith("--") else [str(place / "archive")]
    return ["batch", str(place / "net.onnx"), str(out), *sources, "--workers", "0", "--quiet", *given]


def start(place, out, *more) -> subprocess.Popen:
    """The command in a process, with a worker of its own."""
    given = [place / "net.onnx", out, place / "archive", "--log", "json", *more]
    return subprocess.Popen([*BATCH, *map(str, given)], stderr=subprocess.PIPE, text=True)


def wait_for(process, event: str, number: int = 1) -> None:
    """Read what it says until it has said this so often."""
    for line in process.stderr:
        number -= json.loads(line)["event"] == event
        if not number:
            return
    raise AssertionError(f"too little of {event}")


def end(process) -> tuple[int, str]:
    """Its exit code, and its last line."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err.strip().splitlines()[-1]


def record(out, name="run.json") -> Record:
    return Record.from_json((out / name).read_text())


def rasters(out) -> dict[str, bytes]:
    """Every output by its path."""
    paths = (p for p in out.rglob("*.tif") if p.is_file() and ".run" not in p.parent.suffix)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in paths}


def small(folder: Path, *names: str) -> Path:
    """A few good rasters and a network."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        archives.write(folder / name, archives.noise(seed))
    networks.pixelwise(folder / "net.onnx", seed=3)
    return folder


def batch(folder, *sources, options=None, **how) -> Batch:
    options = options or RunOptions()
    items = find_items([str(folder / s) for s in sources], folder / "out", options)
    return Batch(str(folder / "net.onnx"), folder / "out", items, options, **how)


class TestArchive:
    """The sixty."""

    def test_all_but_the_bad_are_done_and_each_of_these_has_its_reason(self, place):
        entries = record(place / "whole").entries.values()
        totals = record(place / "whole").totals
        assert (totals["done"], totals["failed"]) == (archives.GOOD, archives.BAD)
        failed = {Path(e.source).relative_to(place / "archive").as_posix(): e for e in entries if e.error}
        assert set(failed) == set(archives.REASONS)
        for name, words in archives.REASONS.items():
            assert words in failed[name].reason, failed[name]
            assert "\n" not in failed[name].reason
        assert len(rasters(place / "whole")) == archives.GOOD
        # Damage that shows in mid-run leaves what was computed, for a run with --on-error nodata.
        left = {path.name for path in (place / "whole").rglob("*.run")}
        assert left == {"cut.tif.run", "flipped.tif.run", "picture.tif.run"}
        assert not (place / "whole" / "errors.log").exists()

    def test_the_table_has_a_line_for_each(self, place):
        with (place / "whole" / "summary.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == archives.GOOD + archives.BAD
        assert {line["status"] for line in lines} == {"done", "failed"}
        done = [line for line in lines if line["status"] == "done"]
        assert all(int(d["class0 pixels"]) + int(d["class1 pixels"]) == int(d["valid_pixels"]) for d in done)
        assert sum(bool(line["class0 m2"]) for line in done) > archives.GOOD // 2

    def test_the_page_is_whole_and_shows_each(self, place):
        page = Page((place / "whole" / "summary.html").read_text())
        assert page.tags["img"] == archives.GOOD
        assert page.tags["tr"] == 2 + archives.BAD + archives.GOOD
        assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
        assert not {"script", "link", "iframe"} & set(page.tags)

    def test_run_again_it_computes_nothing(self, place, tmp_path):
        shutil.copytree(place / "whole", tmp_path / "out", copy_function=shutil.copy2)
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.tif")}
        assert run(place, tmp_path / "out") == 1
        again = record(tmp_path / "out")
        assert again.totals["already"] == archives.GOOD
        assert again.totals["failed"] == archives.BAD
        assert not any(entry.blocks_computed for entry in again.entries.values())
        assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.tif")}

    def test_killed_in_the_middle_and_run_again(self, place, tmp_path):
        """The same bytes; what was done is not computed again; the summary is whole at any moment."""
        out = tmp_path / "out"
        process = start(place, out)
        wait_for(process, "Attempted", 25)
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        process.stderr.close()
        assert psutil.wait_procs(workers, timeout=10)[1] == [], "workers end with the batch"
        assert record(out).state == "running"
        assert len(list(csv.DictReader((out / "summary.csv").read_text().splitlines()))) == 60
        done = {name: (out / name).stat().st_mtime_ns for name in rasters(out)}
        assert len(done) >= 25 - archives.BAD
        assert run(place, out) == 1
        assert rasters(out) == rasters(place / "whole")
        assert record(out).totals["already"] >= len(done)
        assert done == {name: (out / name).stat().st_mtime_ns for name in done}

    def test_four_shards_at_once(self, place, tmp_path):
        """The same files as one process makes; the last one to end puts all together."""
        out = tmp_path / "out"
        shards = [start(place, out, "--shard", f"{i}/4", "--threads", "1") for i in range(1, 5)]
        ends = [end(shard) for shard in shards]
        # Bad ones lie side by side: two for each shard.
        assert [code for code, _ in ends] == [1] * 4, ends
        assert rasters(out) == rasters(place / "whole")
        whole, one = record(out), record(place / "whole")
        assert whole.totals == one.totals
        assert list(whole.entries) == list(one.entries)
        assert whole.state == ENDED
        assert len((out / "summary.csv").read_text().splitlines()) == 61
        assert len(list(out.glob("run-*-of-4.json"))) == 4
        # And a batch afterwards finds all of it, and what shards recorded is no longer needed.
        assert run(place, out) == 1
        assert record(out).totals["already"] == archives.GOOD
        assert not list(out.glob("run-*"))


def test_real_slides_and_rasters(shared, tmp_path):
    """Every slide that there is, and scenes of other kinds; each has its picture."""
    networks.pixelwise(tmp_path / "net.onnx", seed=3)
    out = tmp_path / "out"
    sources = [shared / "slides", shared / "rasters" / "[mnr]*"]
    assert run(tmp_path, out, *sources) == 1
    entries = record(out).entries
    failed = {name: entry.reason for name, entry in entries.items() if entry.status != "done"}
    assert list(failed) == ["naip_m_4709963_se_14_1_20100629.tif"]
    assert "choose them with --bands" in failed["naip_m_4709963_se_14_1_20100629.tif"]
    assert len(list((out / ".batch" / "thumbnails").iterdir())) == len(entries) - 1
    assert entries["CMU-1-Small-Region.tif"].classes[0].area_um2 > 0


class Page(HTMLParser):
    """Tags of a page, counted, and the sources of its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.sources += [value for name, value in attrs if name == "src"]

    def handle_data(self, data):
        self.words.append(data)


class TestItems:
    """What arguments name."""

    def names(self, folder, *sources, **options):
        items = find_items(sources, folder / "out", RunOptions(**options))
        return [(Path(i.source).relative_to(folder).as_posix(), i.output) for i in items]

    def test_a_folder_is_mirrored_in_order(self, tmp_path):
        small(tmp_path, "in/b/x.tif", "in/a/y.tif", "in/a.tif", "in/.hidden/z.tif", "in/x.tif.run/labels.tif")
        for name in ("notes.doc", "all.vrt"):
            (tmp_path / "in" / name).write_text("")
        assert self.names(tmp_path, str(tmp_path / "in")) == [
            ("in/a/y.tif", "a/y.tif"),
            ("in/a.tif", "a.tif"),
            ("in/b/x.tif", "b/x.tif"),
        ]
        with_vrt = self.names(tmp_path, str(tmp_path / "in"), allow_vrt=True)
        assert ("in/all.vrt", "all.tif") in with_vrt

    def test_outputs_are_no_sources(self, tmp_path):
        small(tmp_path, "in/a.tif", "out/a.tif")
        assert self.names(tmp_path, str(tmp_path))[0] == ("in/a.tif", "in/a.tif")
        assert len(self.names(tmp_path, str(tmp_path))) == 1

    def test_nor_are_those_of_an_older_output_folder(self, tmp_path):
        """Maps, probabilities and pictures that a report of ours tells of are left out, and counted."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        slides.aperio(tmp_path / "in" / "c.svs", slides.pyramid(slides.patterned(480, 480, [])))
        items = find_items([str(tmp_path / "in")], tmp_path / "in" / "maps", RunOptions(output="both"))
        old = Batch(str(tmp_path / "net.onnx"), tmp_path / "in" / "maps", items, RunOptions(output="both"))
        assert run_batch(old, Here(), Silent()).totals["done"] == 3
        # Reports that are not ours, or of another file, leave nothing out.
        (tmp_path / "in" / "a.report.json").write_text("{}")
        shutil.copy(tmp_path / "in" / "maps" / "a.report.json", tmp_path / "in" / "b.report.json")
        heard = []
        again = find_items([str(tmp_path / "in")], tmp_path / "out", RunOptions(), heard.append)
        assert [item.output for item in again] == ["a.tif", "b.tif", "c.tif"]
        assert [event.message.split()[0] for event in heard] == ["7"]
        assert len(find_items([str(tmp_path / "in/maps/a.tif")], tmp_path / "out", RunOptions())) == 1
        with pytest.raises(UsageError, match=r"but not results that have their \.report\.json beside them"):
            find_items([str(tmp_path / "in" / "maps")], tmp_path / "out", RunOptions())

    def test_globs_and_files_each_once(self, tmp_path):
        small(tmp_path, "in/b/x.tif", "in/a/y.tif", "in/a/z.tif")
        pattern = str(tmp_path / "in" / "*" / "[xy].tif")
        assert [output for _, output in self.names(tmp_path, pattern)] == ["a/y.tif", "b/x.tif"]
        deep = str(tmp_path / "in" / "**" / "*.tif")
        file = str(tmp_path / "in" / "a" / "y.tif")
        outputs = [output for _, output in self.names(tmp_path, deep, str(tmp_path / "in"), file)]
        assert outputs == ["a/y.tif", "a/z.tif", "b/x.tif", "y.tif"]

    def test_a_file_need_not_be_there_nor_end_in_anything(self, tmp_path):
        assert self.names(tmp_path, str(tmp_path / "scan"))[0][1] == "scan.tif"

    def test_lists(self, tmp_path):
        (tmp_path / "list.csv").write_text(
            "output, path,mpp,mask\nx/one.tif,a.tif,0.5,m.geojson\n,sub/b.svs,,\n,https://h/c.tif?k=1,,\n"
        )
        items = find_items([str(tmp_path / "list.csv")], tmp_path / "out", RunOptions())
        assert [i.output for i in items] == ["x/one.tif", "b.tif", "c.tif"]
        assert items[0].source == str(tmp_path / "a.tif")
        assert (items[0].mpp, items[0].mask) == (0.5, str(tmp_path / "m.geojson"))
        assert (items[1].mpp, items[1].mask) == (None, None)
        (tmp_path / "list.txt").write_text("# mine\n\na.tif\n  sub/b.tif\n./#c.tif\n")
        items = find_items([str(tmp_path / "list.txt")], tmp_path / "out", RunOptions())
        assert [Path(i.source) for i in items] == [tmp_path / n for n in ("a.tif", "sub/b.tif", "#c.tif")]

    def test_a_list_that_is_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "list.txt")
        with pytest.raises(UsageError, match="a list is a file, got a directory, device or pipe"):
            find_items([str(tmp_path / "list.txt")], tmp_path / "out", RunOptions())

    def test_lists_end_lines_at_ends_of_lines_alone(self, tmp_path):
        """Not at what else Unicode calls one; and a quoted name may hold one."""
        (tmp_path / "list.txt").write_text("a\x85\u2028b.tif\r\nc.tif", encoding="utf-8-sig", newline="")
        items = find_items([str(tmp_path / "list.txt")], tmp_path / "out", RunOptions())
        assert [Path(i.source).name for i in items] == ["a\x85\u2028b.tif", "c.tif"]
        (tmp_path / "list.csv").write_text('path,mpp\r\n"a\nb.tif",1\r\n', newline="")
        (item,) = find_items([str(tmp_path / "list.csv")], tmp_path / "out", RunOptions())
        assert (Path(item.source).name, item.mpp) == ("a\nb.tif", 1)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("file,mpp\na.tif,1\n", ["path", "got file, mpp"]),
            ("path,colour\na.tif,red\n", ["got path, colour", "list.csv"]),
            ("path,path\na.tif,b.tif\n", ["got path, path"]),
            ("", ["got nothing"]),
            ("path,mpp\na.tif,coarse\n", ["'coarse'", "line 2"]),
            ("path,mpp\na.tif,-1\n", ["'-1'", "above 0"]),
            ("path,mpp\na.tif\n", ["value per column", "2"]),
            ("path,mpp\n,1\n", ["has a path", "line 2"]),
            ('path\n"a.tif\n', ["CSV", "unexpected end"]),
            ("path,output\na.tif,../a.tif\n", ["below the output folder", "'../a.tif'"]),
            ("path,output\na.tif,/a.tif\n", ["below the output folder", "'/a.tif'"]),
            ("path,output\na.tif,a.png\n", ["ends in .tif", "'a.png'"]),
            ("path,output\na.tif,.batch/a.tif\n", ["below the output folder"]),
            ("path,output\na.tif,x.tif\nb.tif,x.tif\n", ["a.tif and", "b.tif", "column output"]),
            ("path\n", ["at least one raster"]),
        ],
    )
    def test_lists_that_cannot_be_used(self, tmp_path, capsys, text, words):
        networks.pixelwise(tmp_path / "net.onnx")
        (tmp_path / "list.csv").write_text(text)
        refused(
            capsys, command, ["batch", tmp_path / "net.onnx", tmp_path / "out", tmp_path / "list.csv"], *words
        )
        assert not (tmp_path / "out").exists()

    def test_outputs_of_two_sources_never_meet(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/a.png", "two/a.tif", "both/a.tif", "both/a.probabilities.tif")
        with pytest.raises(UsageError, match=r"out/a\.tif for both .*in/a\.png and .*in/a\.tif"):
            self.names(tmp_path, str(tmp_path / "in"))
        with pytest.raises(UsageError, match="an output of its own"):
            self.names(tmp_path, str(tmp_path / "in/a.tif"), str(tmp_path / "two/a.tif"))
        assert len(self.names(tmp_path, str(tmp_path / "both"))) == 2
        with pytest.raises(UsageError, match="probabilities"):
            self.names(tmp_path, str(tmp_path / "both"), output="both")

    @pytest.mark.parametrize("source", ["", "empty", "*.xyz"])
    def test_an_argument_names_something(self, tmp_path, source):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="at least one raster"):
            find_items([str(tmp_path / source) if source else ""], tmp_path / "out", RunOptions())


class TestCarryingOn:
    """What is there, and what becomes of it."""

    def test_other_options_make_anew_and_say_so(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        labels = rasters(tmp_path / "out")
        other = batch(tmp_path, "in", options=RunOptions(output="probabilities"))
        entries = run_batch(other, Here(), Silent()).entries.values()
        assert {entry.status for entry in entries} == {"done"}
        for entry in entries:
            assert entry.reason.startswith("computed anew: it was made with another set of options")
            assert '"labels" then, "probabilities" now' in entry.reason
        assert rasters(tmp_path / "out") != labels
        # Threads change no byte, and invalidate nothing.
        same = batch(tmp_path, "in", options=RunOptions(output="probabilities", threads=1))
        assert run_batch(same, Here(), Silent()).totals["already"] == 2

    def test_another_network_makes_anew(self, tmp_path):
        small(tmp_path, "in/a.tif")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        networks.pixelwise(tmp_path / "net.onnx", seed=1)
        (entry,) = run_batch(batch(tmp_path, "in"), Here(), Silent()).entries.values()
        assert "another model" in entry.reason
        assert entry.status == "done"

    def test_other_polygons_are_made_anew_of_the_same_labels(self, tmp_path):
        small(tmp_path, "in/a.tif")

        def polygons(area: float, **how):
            options = RunOptions(vector="geojson", min_area=area)
            (entry,) = run_batch(
                batch(tmp_path, "in", options=options, **how), Here(), Silent()
            ).entries.values()
            return entry.status, entry.reason, (tmp_path / "out" / "a.geojson").read_bytes()

        run_batch(batch(tmp_path, "in"), Here(), Silent())
        assert polygons(0, skip_existing=True)[0] == "already"
        before, labels = polygons(0), rasters(tmp_path / "out")
        status, reason, found = polygons(1000)
        assert (status, rasters(tmp_path / "out")) == ("already", labels)
        assert "polygons made anew" in reason
        assert "min_area" in reason
        assert len(found) < len(before[2])

    def test_a_run_begun_with_other_options_is_begun_anew(self, tmp_path):
        small(tmp_path, "in/a.tif")

        class Stop(Silent):
            def __call__(self, task, event):
                if type(event).__name__ == "Finishing":
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_batch(batch(tmp_path, "in"), Here(), Stop())
        assert record(tmp_path / "out").state == STOPPED
        assert (tmp_path / "out" / "a.tif.run").is_dir()
        other = batch(tmp_path, "in", options=RunOptions(output="both"))
        (entry,) = run_batch(other, Here(), Silent()).entries.values()
        assert "begun with another set of options" in entry.reason
        assert not (tmp_path / "out" / "a.tif.run").exists()

    def test_files_of_others_are_refused(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.tif").write_text("mine")
        found = run_batch(batch(tmp_path, "in"), Here(), Silent())
        assert [entry.status for entry in found.entries.values()] == [FAILED, "done"]
        assert (tmp_path / "out" / "a.tif").read_text() == "mine"

    def test_so_are_polygons_that_are_not_told_of(self, tmp_path):
        """Also where the map itself is ours, and made anew."""
        small(tmp_path, "in/a.tif")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        before = rasters(tmp_path / "out")
        (tmp_path / "out" / "a.geojson").write_text("mine")
        other = batch(tmp_path, "in", options=RunOptions(blend="hann", vector="geojson"))
        (entry,) = run_batch(other, Here(), Silent()).entries.values()
        assert (entry.status, rasters(tmp_path / "out")) == (FAILED, before)
        assert "a.geojson exists and was not made with" in entry.reason
        assert (tmp_path / "out" / "a.geojson").read_text() == "mine"

    def test_so_are_maps_of_other_rasters_of_that_name(self, tmp_path):
        """A raster that has changed is mapped anew; one from elsewhere does not replace its map."""
        small(tmp_path, "in/a.tif", "other/a.tif")
        archives.write(tmp_path / "other" / "a.tif", archives.noise(7))
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        before = rasters(tmp_path / "out")
        (entry,) = run_batch(batch(tmp_path, "other"), Here(), Silent()).entries.values()
        assert entry.status == FAILED
        assert "is of another raster" in entry.reason
        assert rasters(tmp_path / "out") == before
        archives.write(tmp_path / "in" / "a.tif", archives.noise(8))
        (entry,) = run_batch(batch(tmp_path, "in"), Here(), Silent()).entries.values()
        assert (entry.status, rasters(tmp_path / "out") == before) == ("done", False)
        assert "another input file" in entry.reason

    @pytest.mark.parametrize("name", ["run.json", "summary.csv", "summary.html"])
    def test_so_are_folders_of_others(self, tmp_path, name):
        small(tmp_path, "in/a.tif")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text("{}")
        with pytest.raises(UsageError, match=f"{re.escape(name)}.*choose another folder"):
            run_batch(batch(tmp_path, "in"), Here(), Silent())
        assert (tmp_path / "out" / name).read_text() == "{}"

    def test_skip_existing_opens_nothing_that_is_there(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif")
        run_batch(batch(tmp_path, "in", limit=1), Here(), Silent())
        (tmp_path / "in" / "a.tif").write_text("no raster any more")
        for name in ("run.json", "summary.csv", "summary.html"):
            (tmp_path / "out" / name).unlink()
        found = run_batch(batch(tmp_path, "in", skip_existing=True), Here(), Silent())
        first, second = found.entries.values()
        assert (first.status, first.reason) == ("already", "not opened, its output is there")
        assert first.pixels == archives.noise(0)[0].size
        assert second.status == "done"

    def test_retry_failed_tries_those_alone(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif")
        good = (tmp_path / "in" / "b.tif").read_bytes()
        (tmp_path / "in" / "b.tif").write_text("not yet")
        again = batch(tmp_path, "in", retry_failed=True)
        with pytest.raises(UsageError, match=r"--retry-failed goes by the last run\.json"):
            run_batch(again, Here(), Silent())
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        (tmp_path / "in" / "b.tif").write_bytes(good)
        tried = []

        class Watch(Silent):
            def ended(self, task, outcome):
                tried.append(Path(task.source).name)

        found = run_batch(again, Here(), Watch())
        assert tried == ["b.tif"]
        assert [entry.status for entry in found.entries.values()] == ["done", "done"]

    def test_retry_failed_knows_a_raster_by_any_name(self, tmp_path, monkeypatch):
        small(tmp_path, "in/a.tif")
        (tmp_path / "in" / "b.tif").write_text("not yet")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        monkeypatch.chdir(tmp_path)
        items = find_items(["in"], tmp_path / "out", RunOptions())
        again = Batch("net.onnx", tmp_path / "out", items, RunOptions(), retry_failed=True)
        assert run_batch(again, Here(), Silent()).totals[FAILED] == 1
        small(tmp_path, "other/b.tif")
        with pytest.raises(UsageError, match="knows of no attempt at these rasters"):
            run_batch(batch(tmp_path, "other", retry_failed=True), Here(), Silent())

    def test_overwrite_that_was_stopped_goes_on_with_what_is_left(self, tmp_path):
        """What it has renewed is not computed once more; when it has ended, all of it is again."""
        small(tmp_path, "in/a.tif", "in/b.tif", "in/c.tif")
        run_batch(batch(tmp_path, "in"), Here(), Silent())

        class Stop(Silent):
            def ended(self, task, outcome):
                if task.source.endswith("b.tif"):
                    raise KeyboardInterrupt

        again = batch(tmp_path, "in", options=RunOptions(overwrite=True))
        with pytest.raises(KeyboardInterrupt):
            run_batch(again, Here(), Stop())
        # A kill would leave a record that still runs.
        text = (tmp_path / "out" / "run.json").read_text()
        (tmp_path / "out" / "run.json").write_text(text.replace('"state": "stopped"', '"state": "running"'))
        archives.write(tmp_path / "in" / "a.tif", archives.noise(8))  # and one has changed since
        statuses = [e.status for e in run_batch(again, Here(), Silent()).entries.values()]
        assert statuses == ["done", "already", "done"]
        statuses = [e.status for e in run_batch(again, Here(), Silent()).entries.values()]
        assert statuses == ["done"] * 3

    def test_overwrite_with_other_options_begins_anew(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif")

        class Stop(Silent):
            def ended(self, task, outcome):
                raise KeyboardInterrupt

        for options in ({}, {"blend": "hann"}):
            again = batch(tmp_path, "in", options=RunOptions(overwrite=True, **options))
            with pytest.raises(KeyboardInterrupt):
                run_batch(again, Here(), Stop())
        assert [e.status for e in record(tmp_path / "out").entries.values()] == ["done", PENDING]
        assert [e.renewed for e in record(tmp_path / "out").entries.values()] == [True, False]

    @pytest.mark.parametrize("name", ["s.tissue.png", "s.config.toml"])
    def test_a_small_file_that_is_gone_is_made_anew_alone(self, tmp_path, name):
        slides.aperio(tmp_path / "s.svs", slides.pyramid(slides.textured(480, 480)))
        networks.pixelwise(tmp_path / "net.onnx", seed=3)
        run_batch(batch(tmp_path, "s.svs"), Here(), Silent())
        before = (tmp_path / "out" / name).read_bytes()
        (tmp_path / "out" / name).unlink()
        (entry,) = run_batch(batch(tmp_path, "s.svs"), Here(), Silent()).entries.values()
        assert (entry.status, entry.blocks_computed) == ("already", 0)
        assert (tmp_path / "out" / name).read_bytes() == before

    def test_limit_goes_on_from_what_is_left(self, tmp_path):
        small(tmp_path, "in/a.tif", "in/b.tif", "in/c.tif")
        some = batch(tmp_path, "in", limit=2, skip_existing=True)
        assert run_batch(some, Here(), Silent()).totals["pending"] == 1
        assert run_batch(some, Here(), Silent()).totals["pending"] == 0
        assert len(rasters(tmp_path / "out")) == 3

    def test_what_another_network_made_is_not_done(self, tmp_path):
        """Of three, one is made anew; the others are known to be left."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        (tmp_path / "in" / "c.tif").write_text("no raster")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        same = batch(tmp_path, "in", options=RunOptions(threads=1, memory=10**9), limit=1)
        assert [e.status for e in run_batch(same, Here(), Silent()).entries.values()] == [
            "already",
            "done",
            FAILED,
        ]
        networks.pixelwise(tmp_path / "net.onnx", seed=1)
        first, second, third = run_batch(batch(tmp_path, "in", limit=1), Here(), Silent()).entries.values()
        assert (first.status, second.status, third.status) == ("done", PENDING, FAILED)
        assert "made with another network" in second.reason

    def test_what_a_list_says_goes_before_the_options(self, tmp_path):
        small(tmp_path, "a.tif", "b.tif")
        archives.write(tmp_path / "wanted.tif", archives.noise(5, bands=1))
        (tmp_path / "list.csv").write_text("path,mask,output\na.tif,wanted.tif,one/masked.tif\nb.tif,,\n")
        run_batch(batch(tmp_path, "list.csv"), Here(), Silent())
        config = (tmp_path / "out" / "one" / "masked.config.toml").read_text()
        assert "wanted.tif" in config
        assert "mask" not in (tmp_path / "out" / "b.config.toml").read_text()


def test_a_map_of_nothing_is_worth_a_word(tmp_path):
    """Also where the run itself went well."""
    slides.aperio(tmp_path / "s.svs", slides.pyramid(slides.patterned(480, 480, [])))
    networks.pixelwise(tmp_path / "net.onnx", seed=3)
    (entry,) = run_batch(batch(tmp_path, "s.svs"), Here(), Silent()).entries.values()
    assert (entry.status, entry.reason) == ("done", "all of it is nodata: no tissue was found")


def test_a_damaged_map_that_is_made_anew_says_both(tmp_path):
    slides.damage_tile(slides.aperio(tmp_path / "s.svs", slides.pyramid(slides.textured(480, 480))), 0)
    networks.pixelwise(tmp_path / "net.onnx", seed=3)
    for grid in ("model", "source"):
        options = RunOptions(on_error="nodata", tissue="off", grid=grid)
        (entry,) = run_batch(batch(tmp_path, "s.svs", options=options), Here(), Silent()).entries.values()
        assert entry.status == "damaged"
        assert entry.reason.startswith("1 damaged blocks are nodata, the first at rows 0:240, columns 0:240")
    assert "computed anew: it was made with another set of options" in entry.reason


class TestFailures:
    """One raster's trouble is its own."""

    def test_a_bug_costs_one_raster_and_leaves_its_traceback(self, tmp_path, monkeypatch):
        small(tmp_path, "in/a.tif", "in/b.tif")
        real = task_module.segment

        def buggy(source, *more):
            if source.endswith("a.tif"):
                raise ZeroDivisionError("by nothing")
            return real(source, *more)

        monkeypatch.setattr(task_module, "segment", buggy)
        found = run_batch(batch(tmp_path, "in"), Here(), Silent())
        first, second = found.entries.values()
        assert first.reason == "ZeroDivisionError: by nothing; a bug: please report it"
        assert second.status == "done"
        log = (tmp_path / "out" / "errors.log").read_text()
        assert "a.tif" in log
        assert "Traceback" in log

    def test_a_killed_worker_costs_one_raster(self, tmp_path):
        """Another process goes on."""
        small(tmp_path, "in/a.tif", "in/b.tif", "in/c.tif")
        pids = []

        class Kill(Silent):
            def __call__(self, task, event):
                if task.source.endswith("b.tif") and isinstance(event, Planned):
                    (child,) = (c for c in psutil.Process().children() if "spawn_main" in str(c.cmdline()))
                    pids.append(child.pid)
                    os.kill(child.pid, signal.SIGKILL)

        found = run_batch(batch(tmp_path, "in"), Processes(["cpu"]), Kill())
        assert [entry.status for entry in found.entries.values()] == ["done", FAILED, "done"]
        assert "ended with signal 9" in found.entries["b.tif"].reason
        assert len(pids) == 1
        again = run_batch(batch(tmp_path, "in"), Processes(["cpu", "cpu"]), Silent())
        assert [entry.status for entry in again.entries.values()] == ["already", "done", "already"]
        assert not [c for c in psutil.Process().children() if "spawn_main" in str(c.cmdline())]

    def test_a_worker_that_ends_before_it_begins_ends_the_batch(self, tmp_path, monkeypatch):
        """Else each raster would fail in its turn."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        begin = Worker.start

        def start(_, device, task):
            worker = begin(device, task)
            worker.process.kill()
            return worker

        monkeypatch.setattr(Worker, "start", classmethod(start))
        with pytest.raises(TilerError, match=r"no network was loaded: .* signal 9"):
            run_batch(batch(tmp_path, "in"), Processes(["cpu"]), Silent())
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_was_there_stays(self, tmp_path):
        """Somebody may have made it for others to write to."""
        small(tmp_path, "in/a.tif")
        (tmp_path / "net.onnx").write_text("no network")
        (tmp_path / "out").mkdir()
        with pytest.raises(InputError, match="a model is an ONNX file"):
            run_batch(batch(tmp_path, "in"), Here(), Silent())
        assert not list((tmp_path / "out").iterdir())

    def test_a_network_that_cannot_be_loaded_leaves_nothing(self, tmp_path, capsys):
        small(tmp_path, "in/a.tif")
        out = tmp_path / "out"
        refused(capsys, command, ["batch", tmp_path / "no.onnx", out, tmp_path / "in"], "no.onnx")
        (tmp_path / "no.onnx").write_bytes(b"something else")
        refused(capsys, command, ["batch", tmp_path / "no.onnx", out, tmp_path / "in"], "ONNX file")
        assert not out.exists()

    def test_want_of_disk_stops_it_early(self, tmp_path):
        small(tmp_path, *(f"in/{n}.tif" for n in range(6)))

        class Full:
            def run(self, tasks, observer):
                for number, task in enumerate(tasks):
                    error = InputError("bad") if number == 1 else OutputError("no space left")
                    yield task, failure(str(error), error)

        with pytest.raises(OutputError, match=r"3 rasters in a row .* no space left; 1 are left"):
            run_batch(batch(tmp_path, "in"), Full(), Silent())
        found = record(tmp_path / "out")
        assert (found.totals[FAILED], found.totals["pending"], found.state) == (5, 1, STOPPED)

    def test_errors_survive_the_way_between_processes(self):
        import pickle

        error = OtherRunError("a.tif exists; pass --overwrite", "made with another", other_input=True)
        back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (str(back), back.difference, back.other_input) == (str(error), "made with another", True)
        task = Task("a.tif", "net.onnx", "out.tif", RunOptions(bands=(1, 2)))
        assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301
        assert pickle.loads(pickle.dumps(Outcome(FAILED, "x"))) == Outcome(FAILED, "x")  # noqa: S301

    def test_damage_that_became_nodata_is_told(self, place, tmp_path, capsys):
        source = place / "archive" / "bad" / "flipped.tif"
        assert run(place, tmp_path / "out", source, "--on-error", "nodata") == 1
        (entry,) = record(tmp_path / "out").entries.values()
        assert entry.status == "damaged"
        assert "blocks are nodata, the first at" in entry.reason
        assert (tmp_path / "out" / "flipped.tif").exists()
        assert "failed or are damaged" in capsys.readouterr().err


class TestProcesses:
    """Real signals, several at once."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_at_once_and_leaves_a_summary(self, place, tmp_path, number):
        process = start(place, tmp_path / "out")
        wait_for(process, "Attempted", 12)
        workers = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert end(process) == (4, "error: interrupted; run the same command again to carry on")
        assert psutil.wait_procs(workers, timeout=10)[1] == []
        found = record(tmp_path / "out")
        assert found.state == STOPPED
        assert found.totals["done"] + found.totals[FAILED] >= 12
        assert found.totals["pending"]

    def test_two_batches_in_one_folder(self, place, tmp_path, capsys):
        first = start(place, tmp_path / "out")
        wait_for(first, "Attempted")
        first.send_signal(signal.SIGSTOP)
        refused(capsys, command, arguments(place, tmp_path / "out"), f"process {first.pid} on", "is at work")
        refused(capsys, command, arguments(place, tmp_path / "out", "--shard", "1/2"), "is at work")
        first.send_signal(signal.SIGCONT)
        first.terminate()
        end(first)

    def test_a_table_on_a_terminal_of_80_columns(self, place, tmp_path):
        """It is drawn over itself, no line is wrapped, and what fails stays to be read."""
        parent, child = pty.openpty()
        given = [place / "net.onnx", tmp_path / "out", place / "archive", "--limit", "20"]
        environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
        with subprocess.Popen(
            [*BATCH, *map(str, given)], stdout=subprocess.DEVNULL, stderr=child, env=environment
        ) as process:
            os.close(child)
            seen = b""
            while True:
                try:
                    seen += os.read(parent, 4096)
                except OSError:
                    break
        os.close(parent)
        assert process.returncode == 1
        text = seen.decode()
        assert "\x1b[J" in text
        drawn = [line for line in re.split(r"\r?\n|\x1b\[\d+F|\x1b\[J", text) if " of 20 rasters " in line]
        assert drawn
        assert max(map(len, drawn)) < 80
        assert text.count("failed ") >= archives.BAD
        assert "20 of 20 rasters" in text

    def test_one_worker_per_card_and_shares_of_the_machine(self):
        assert devices(RunOptions(), None) == ["auto"]
        assert devices(RunOptions(device="cpu"), 3) == ["cpu"] * 3
        shared = shared_out(RunOptions(), 2)
        assert shared.threads >= 1
        assert shared.memory > 0
        told = RunOptions(threads=3, memory=10**9)
        assert shared_out(told, 2) == told


def part(folder, number, **options) -> Batch:
    """One of two shards of a batch."""
    return batch(folder, "in", options=RunOptions(shard=(number, 2), **options))


class TestShards:
    """Parts of one batch."""

    def test_shards_of_other_options_are_refused_while_one_is_at_work(self, tmp_path):
        """Else the last to end would decide what the summary says of all."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        other, same = part(tmp_path, 2, vector="fgb"), part(tmp_path, 2, vector="gpkg", threads=1)
        done = []

        class Meanwhile(Silent):
            def ended(self, task, outcome):
                with pytest.raises(UsageError, match=r'vector: "gpkg" then, "fgb" now.*wait for them'):
                    run_batch(other, Here(), Silent())
                done.append(run_batch(same, Here(), Silent()).totals["done"])

        run_batch(part(tmp_path, 1, vector="gpkg"), Here(), Meanwhile())
        assert done == [1]
        assert record(tmp_path / "out").totals["done"] == 2

    def test_what_shards_of_other_options_did_before_is_not_done(self, tmp_path):
        """They have left: the batch is another one, of which one shard has been here."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        run_batch(part(tmp_path, 1, vector="gpkg"), Here(), Silent())
        run_batch(part(tmp_path, 2, vector="fgb"), Here(), Silent())
        whole = record(tmp_path / "out")
        first, second = whole.entries.values()
        assert (first.status, second.status) == (PENDING, "done")
        assert "made with another network, or other options" in first.reason
        assert (whole.options["vector"], whole.state) == ("fgb", "running")


def test_the_pace_counts_what_this_batch_computed(tmp_path):
    """Of a raster that an earlier one had begun, the rest."""
    small(tmp_path, "in/a.tif")
    run_batch(batch(tmp_path, "in"), Here(), Silent())
    report = Outputs(tmp_path / "out" / "a.tif", "labels").stored()
    task = Task(str(tmp_path / "in" / "a.tif"), "net.onnx", "out.tif", RunOptions())
    pace = Pace.of([task])
    pace.end(task, Outcome("done", report=replace(report, blocks=4, blocks_computed=1)))
    assert (pace.pixels, pace.counts) == (report.pixels // 4, {"done": 1})


class TestCommand:
    """The command line."""

    def test_dry_run_tells_of_polygons(self, tmp_path, capsys):
        """Maps that lack them are not done, and their size is said to come on top."""
        small(tmp_path, "in/a.tif", "in/b.tif")
        run_batch(batch(tmp_path, "in", limit=1), Here(), Silent())
        given = ["batch", tmp_path / "net.onnx", tmp_path / "out", tmp_path / "in", "--dry-run"]
        for more, words in (
            ([], ["done already  1", "of maps"]),
            (["--vector", "gpkg"], ["done already   0", "only polygons  1 maps are done already", "on top"]),
        ):
            assert run_command(command, [str(g) for g in [*given, *more]]) == 0
            out = capsys.readouterr().out
            for word in words:
                assert word in out, out
            assert ("polygons" in out) == bool(more)

    def test_dry_run_says_what_it_would_take_and_writes_nothing(self, place, tmp_path):
        result = CliRunner().invoke(
            command,
            ["batch", str(place / "net.onnx"), str(tmp_path / "out"), str(place / "archive"), "--dry-run"],
        )
        assert result.exit_code == 1
        assert not (tmp_path / "out").exists()
        assert result.stdout.count("failed /") == archives.BAD - 3  # damage shows when pixels are read
        for word in ("rasters       60, of 60", "tiles", "time", "disk"):
            assert word in result.stdout

    def test_names_are_escaped(self, tmp_path):
        small(tmp_path, "in/<b>x&y.tif", "in/=1+1.tif")
        (tmp_path / "in" / "<script>.tif").write_text("")
        run_batch(batch(tmp_path, "in"), Here(), Silent())
        page = Page((tmp_path / "out" / "summary.html").read_text())
        assert not {"b", "script"} & set(page.tags)
        assert any("<b>x&y.tif" in word for word in page.words)

    def test_options_that_contradict_each_other(self, place, tmp_path, capsys):
        more = ["--skip-existing", "--overwrite"]
        refused(capsys, command, arguments(place, tmp_path / "out", *more), "--skip-existing")

    def test_an_output_folder_that_cannot_be(self, place, tmp_path, capsys):
        (tmp_path / "out").write_text("a file")
        refused(capsys, command, arguments(place, tmp_path / "out"), "cannot write to", code=1)
