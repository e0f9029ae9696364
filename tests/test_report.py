"""What a report holds, against the evaluation it was made of."""

from __future__ import annotations

import csv
import json
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rasterio.io import MemoryFile

torch = pytest.importorskip("torch")

from tiler.errors import MissingError, OutputError, UsageError  # noqa: E402
from tiler.geometry import Window  # noqa: E402
from tiler.metrics import Confusion  # noqa: E402
from tiler.pixels import Pixels  # noqa: E402
from tiler.spec import ClassSpec, ModelSpec, default_classes  # noqa: E402
from train.data.labelled import Library, Part, Source  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.data.maskfile import MaskFile  # noqa: E402
from train.evaluate import Examiner, evaluate  # noqa: E402
from train.evaluation import Evaluation, SampleScore  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.record import Epoch, results, write_lines  # noqa: E402
from train.report import charts, lettering  # noqa: E402
from train.report.make import make_report  # noqa: E402
from train.report.palette import colored, voc_color  # noqa: E402
from train.report.pictures import cut_out, mask, overlay, photo, take  # noqa: E402
from train.report.tensorboard import open_board  # noqa: E402
from training_data import write_pair  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CPU = torch.device("cpu")
NAMES = ("background", "<b>building</b>", "water")
CLASSES = default_classes(NAMES)
SPEC = ModelSpec(("r", "g", "b"), CLASSES, scale=(1 / 255,) * 3, stride=2, halo=12, exact=True)
EPOCHS = [Epoch(n, 1 / n, 0.01, (0.5, 0.1 * n, float("nan")), 0.3 + 0.01 * n, 1.5, 0.1) for n in range(1, 4)]


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """An examiner, and what it found of a georeferenced pair in eight samples; there is no water."""
    image, labels = write_pair(tmp_path_factory.mktemp("data"))
    torch.manual_seed(1)
    net = make("unet", 3, 3, width=4, depth=1).eval()
    part = Part(Source(Path(image), MaskFile(Path(labels))), Window(0, 0, 64, 200))
    library = Library(Legend(NAMES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.evaluate.WHOLE", 30)
        patch.setattr("train.evaluate.SQUARE", 50)
        return Examiner(net, CPU, library, SPEC), evaluate(net, CPU, [part], library, SPEC)


@pytest.fixture(scope="module")
def folder(examined, tmp_path_factory):
    """A finished report."""
    folder = tmp_path_factory.mktemp("run") / "report"
    make_report(folder, *examined, EPOCHS, title="A & B", facts={"data": "<script>alert(1)</script>"})
    return folder


def table(path):
    """Rows of a CSV file by the first column."""
    with path.open() as file:
        head, *rows = csv.reader(file)
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_it_writes_what_it_says(folder):
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "best.png", "classes.csv", "classes.png", "confusion.csv", "confusion.png", "pictures", "report.html",
        "samples.csv", "samples.png", "worst.png",
    }  # fmt: skip
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_samples_are_rows(folder, examined):
    _, found = examined
    rows = table(folder / "samples.csv")
    assert len(rows) == len(found.samples) == 8
    for sample in found.samples:
        row = rows[sample.name]
        assert int(row["left"]) == sample.window.left
        assert float(row["iou_background"]) == pytest.approx(sample.sums.iou[0], abs=1e-5)
        assert row["iou_water"] == "" or sample.sums.predicted[2]


def test_both_kinds_of_figures_are_named(folder, examined):
    _, found = examined
    row = table(folder / "classes.csv")["background"]
    assert float(row["iou"]) == pytest.approx(found.confusion.iou[0], abs=1e-5)
    assert float(row["sample_mean_iou"]) == pytest.approx(found.sample_mean("iou")[0], abs=1e-5)
    assert row["iou"] != row["sample_mean_iou"]


def test_amounts_add_up(folder):
    """Pixels, shares, and square metres on the ground: a quarter of one per pixel."""
    rows = table(folder / "classes.csv").values()
    assert sum(int(row["true_pixels"]) for row in rows) == 64 * 200
    assert sum(float(row["predicted_share"]) for row in rows) == pytest.approx(1, abs=1e-4)
    assert sum(float(row["true_m2"]) for row in rows) == pytest.approx(0.25 * 64 * 200, rel=0.01)


def test_the_confusion_is_there_in_full(folder, examined):
    _, found = examined
    with (folder / "confusion.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head[1:] == list(NAMES)
    assert [[int(cell) for cell in row[1:]] for row in rows] == found.confusion.counts.tolist()


class Page(HTMLParser):
    """What a browser would load, and whether tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(folder):
    """Every image is in it and decodes; no script, no address, and every name is text."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "http" not in text.replace("http-equiv", "")
    assert len(page.links) == 4 * 8 + 4
    for link in page.links:
        head, data = link.split(",", 1)
        assert head in {"data:image/png;base64", "data:image/jpeg;base64"}
        with MemoryFile(b64decode(data)) as file, file.open() as image:
            assert image.read().any() or "png" in head
    for words in ("A &amp; B", "&lt;script&gt;", "prefers-color-scheme: dark", "width=device-width"):
        assert words in text


def test_an_absent_class_is_a_dash(folder, examined):
    _, found = examined
    assert not found.confusion.true[2]
    assert table(folder / "classes.csv")["water"]["recall"] == ""
    assert "&ndash;" in (folder / "report.html").read_text(encoding="utf-8")


def test_no_sample_is_among_the_worst_and_the_best(folder):
    names = [p.name for p in sorted((folder / "pictures").iterdir())]
    assert len(names) == 3 * 8
    shown = {name.split("_", 1)[1] for name in names}
    assert len(shown) == 3 * 8


def test_a_report_is_replaced(examined, folder, tmp_path):
    again = tmp_path / "report"
    again.mkdir()
    (again / "old.png").touch()
    make_report(again, *examined, EPOCHS, title="A & B", facts={"data": "<script>alert(1)</script>"})
    assert not (again / "old.png").exists()
    for name in ("samples.csv", "classes.csv", "confusion.csv", "report.html"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_disk_that_takes_nothing_is_one_line(examined, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        make_report(tmp_path / "file" / "report", *examined, EPOCHS)


def test_without_a_scored_sample_there_is_a_report(tmp_path, examined):
    """All background, and found to be: no gallery."""
    examiner, found = examined
    empty = type(found)(found.confusion, [])
    make_report(tmp_path / "report", examiner, empty, [])
    assert not (tmp_path / "report" / "worst.png").exists()
    assert (tmp_path / "report" / "report.html").stat().st_size > 1000


def test_a_report_of_independent_classes(tmp_path):
    """Each class has a row of its own in the confusion, and pixels count once."""
    image, labels = write_pair(tmp_path)
    names = ("dark", "bright")
    spec = ModelSpec(("r", "g", "b"), default_classes(names), activation="sigmoid", stride=2, halo=12)
    examiner = Examiner(
        make("unet", 3, 2, width=4, depth=1), CPU, Library(Legend(names, independent=True)), spec
    )
    part = Part(Source(Path(image), MaskFile(Path(labels))), Window(0, 0, 64, 200))
    found = evaluate(examiner.net, CPU, [part], examiner.library, spec)
    make_report(tmp_path / "report", examiner, found, EPOCHS[:0], palette="voc")
    rows = table(tmp_path / "report" / "confusion.csv")
    assert [int(v) for v in list(rows["bright"].values())[1:]] == found.confusion.counts[1].ravel().tolist()
    assert int(table(tmp_path / "report" / "samples.csv")["raster"]["known_pixels"]) == 64 * 200
    shares = [float(row["true_share"]) for row in table(tmp_path / "report" / "classes.csv").values()]
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_charts_of_very_many_classes_stay_small(monkeypatch):
    """A panel each, or a figure in each cell, would grow with their number, and its square."""
    monkeypatch.setattr(charts, "MOST", 3)
    names, confusion = tuple("abcdefghijkl"), Confusion(12)
    confusion.add(np.array([3, 5, 5, 9, 9, 9]), np.zeros(6, int))
    window = Window(0, 0, 1, 1)
    sample = SampleScore(Part(Source(Path("a.png"), None), window), window, confusion)
    for png, limit in (
        (charts.sample_curves(Evaluation(confusion, [sample]), names), 650),
        (charts.confusion_chart(confusion, names), 450),
    ):
        with MemoryFile(png) as file, file.open() as image:
            assert image.height < limit


# --- pictures


def test_a_picture_shows_what_was_counted(examined):
    examiner, found = examined
    sample = found.samples[2]
    picture = take(examiner, sample)
    again = Confusion(3)
    again.add(picture.truth_QHW[0], picture.labels_QHW[0])
    for name in ("hits", "true", "predicted", "asked"):
        assert getattr(again, name).tolist() == getattr(sample.sums, name).tolist()


PHOTO_3HW = np.arange(12, dtype=np.uint8).reshape(3, 2, 2) + 100
LABELS_1HW = np.array([[[0, 1], [2, 255]]], np.uint8)
RED_BLUE = (ClassSpec("none", (0, 0, 0)), ClassSpec("red", (255, 0, 0)), ClassSpec("blue", (0, 0, 255)))


def test_masks_overlays_and_cut_outs():
    colors = mask(LABELS_1HW, RED_BLUE)
    assert colors[:, 0, 0].tolist() == [0, 0, 0]
    assert colors[:, 0, 1].tolist() == [255, 0, 0]
    assert colors[:, 1, 0].tolist() == [0, 0, 255]
    assert colors[:, 1, 1].tolist() == [128, 128, 128]
    kept = cut_out(PHOTO_3HW, LABELS_1HW, RED_BLUE)
    assert kept[:, 0, 1].tolist() == PHOTO_3HW[:, 0, 1].tolist()
    assert kept[:, 0, 0].tolist() == kept[:, 1, 1].tolist() == [0, 0, 0]
    drawn = overlay(PHOTO_3HW, LABELS_1HW, RED_BLUE)
    assert drawn[:, 0, 0].tolist() == PHOTO_3HW[:, 0, 0].tolist()
    assert drawn[0, 0, 1] > PHOTO_3HW[0, 0, 1]


def test_pictures_of_independent_classes():
    """A plane each; the first is no background."""
    planes_2HW = np.array([[[1, 0], [0, 255]], [[1, 1], [0, 255]]], np.uint8)
    assert mask(planes_2HW, RED_BLUE[1:])[:, 0, 0].tolist() == [0, 0, 255]
    assert cut_out(PHOTO_3HW, planes_2HW, RED_BLUE[1:])[:, 0, 0].tolist() == PHOTO_3HW[:, 0, 0].tolist()
    assert overlay(PHOTO_3HW, planes_2HW, RED_BLUE[1:])[:, 1, 0].tolist() == PHOTO_3HW[:, 1, 0].tolist()


@pytest.mark.parametrize("bands", [1, 2, 6])
def test_photos_of_any_bands_and_type(bands):
    raw_CHW = np.linspace(0, 9000, bands * 400).reshape(bands, 20, 20).astype(np.uint16)
    valid_HW = np.ones((20, 20), np.bool_)
    valid_HW[0, 0] = False
    seen_3HW = photo(Pixels(raw_CHW, valid_HW))
    assert seen_3HW.shape == (3, 20, 20)
    assert seen_3HW[:, 0, 0].tolist() == [128] * 3
    assert (seen_3HW[0, 0, 1], seen_3HW[0, -1, -1]) == (0, 255)


# --- palettes


def test_the_voc_palette():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 21: (128, 64, 128)}
    assert {index: voc_color(index) for index in known} == known
    assert voc_color(255) == (224, 224, 192)
    assert len({voc_color(index) for index in range(256)}) == 256


def test_palettes():
    many = default_classes(tuple(f"class {i}" for i in range(30)))
    assert colored(RED_BLUE) == RED_BLUE
    assert [c.color for c in colored(RED_BLUE, "voc")] == [voc_color(i) for i in range(3)]
    assert colored(many, "voc") == colored(many, "wheel")
    assert len({kind.color for kind in colored(many, "wheel")}) == 30
    with pytest.raises(UsageError, match=r"voc.*'jet'"):
        colored(RED_BLUE, "jet")


# --- records


def test_the_log_for_machines(tmp_path):
    write_lines(tmp_path / "log.jsonl", EPOCHS, NAMES)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert lines[1]["iou"] == {"background": 0.5, "<b>building</b>": 0.2, "water": None}


def test_results_hold_both_kinds(examined):
    _, found = examined
    told = json.loads(json.dumps(results(found, NAMES), allow_nan=False))
    assert told["classes"]["background"]["iou"] == pytest.approx(found.confusion.iou[0], abs=1e-6)
    assert told["samples"]["count"] == 8
    assert told["samples"]["classes"]["background"]["iou"] == pytest.approx(
        found.sample_mean("iou")[0], abs=1e-6
    )
    assert told["classes"]["water"]["recall"] is None


def test_tensorboard_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingError, match=r"gigatiler\[tensorboard\]"):
        open_board(tmp_path)


def test_a_board_takes_curves_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    board = open_board(tmp_path)
    board.scalar("loss", 0.5, 1)
    board.scalar("iou", float("nan"), 1)
    board.image("sample", PHOTO_3HW, 1)
    board.close()
    (events,) = tmp_path.iterdir()
    assert b"loss" in events.read_bytes()
    assert b"iou" not in events.read_bytes()


# --- letters


@pytest.fixture
def fonts_with(monkeypatch):
    """Leave only fonts that come with matplotlib, and of these only some."""
    from matplotlib.font_manager import fontManager

    def leave(wanted):
        fonts = [f for f in fontManager.ttflist if "mpl-data" in f.fname and wanted(f)]
        monkeypatch.setattr(fontManager, "ttflist", fonts)
        lettering._searched.cache_clear()

    yield leave
    lettering._searched.cache_clear()


def test_letters_are_of_a_font_that_has_them(fonts_with):
    """STIX has what DejaVu Sans lacks; without it, it is missing. What nobody has is said in one line."""
    fonts_with(lambda _: True)
    circled = "\u20dd"
    assert lettering.lettering(["road", "Straße"]).families == ("DejaVu Sans",)
    assert lettering.lettering([circled]) == lettering.Lettering(("DejaVu Sans", "STIXGeneral"))
    assert lettering.lettering(["road 背"]).missing == "背"
    line = lettering.box_warning(["背景", "背"])
    assert "boxes for 景背, which" in line
    assert "\n" not in line
    assert lettering.box_warning(["road", "Straße", circled]) is None
    fonts_with(lambda f: f.name == "DejaVu Sans")
    assert lettering.lettering([circled]).missing == circled


def test_charts_take_names_as_they_are(examined, tmp_path, capfd):
    """Chinese, or what it might take for mathematics; without a word of matplotlib's."""
    classes = default_classes(("背景", "a$b_{c$", "water"))
    examiner, found = examined
    epochs = [replace(epoch, iou=(0.5, 0.4, 0.3)) for epoch in EPOCHS]
    make_report(tmp_path / "r", replace(examiner, spec=replace(SPEC, classes=classes)), found, epochs)
    assert (tmp_path / "r" / "classes.png").exists()
    assert capfd.readouterr() == ("", "")
