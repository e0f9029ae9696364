"""Evaluation against one call of the network on whole images, and its figures against closed forms."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

torch = pytest.importorskip("torch")

from tiler.geometry import Window  # noqa: E402
from tiler.metrics import Confusion, IndependentConfusion, Scores  # noqa: E402
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train.checkpoint import save_checkpoint  # noqa: E402
from train.data.labelled import Library, Part, Source  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.data.maskfile import MaskFile  # noqa: E402
from train.data.target import IGNORE  # noqa: E402
from train.evaluate import Examiner, cells, evaluate, part_axis  # noqa: E402
from train.evaluation import Evaluation, SampleScore  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.models.same_size import same_size  # noqa: E402
from training_data import PLACE, blocks, write, write_pair  # noqa: E402

CPU = torch.device("cpu")
NAMES = ("background", "building")
SPEC = ModelSpec(
    bands=("r", "g", "b"),
    classes=default_classes(NAMES),
    scale=(1 / 255,) * 3,
    mean=(0.3,) * 3,
    std=(0.2,) * 3,
    stride=4,
    halo=24,
    exact=True,
)
HEIGHT, WIDTH = 64, 200


@pytest.fixture
def part(tmp_path):
    """All of a georeferenced pair, half a metre per pixel."""
    image, labels = write_pair(tmp_path, HEIGHT, WIDTH)
    return Part(Source(Path(image), MaskFile(Path(labels))), Window(0, 0, HEIGHT, WIDTH))


def library(*, independent=False):
    """Of two classes."""
    return Library(Legend(NAMES, independent=independent))


def network(classes=2, preset="unet"):
    """Small, with random weights, of which the last bias is such that it is of two minds."""
    torch.manual_seed(1)
    net = make(preset, 3, classes, width=4, depth=2).eval()
    logits_KHW = logits_of(net)
    leaning = np.median(logits_KHW[-1] - (logits_KHW[0] if classes > 1 else 0))
    with torch.no_grad():
        net.head.bias.view(-1, classes)[:, -1] -= float(leaning)  # by K within a cell of finer scores
    return net


def truth():
    """Labels (H, W)."""
    return blocks(HEIGHT, WIDTH)[1][0]


def fed(image_CHW):
    """Pixels as the spec has them, (1, C, H, W)."""
    return torch.from_numpy((image_CHW[None] / 255 - 0.3) / 0.2).float()


def logits_of(net):
    """Of the whole image in one call, mirrored up to the stride and cut back, (K, H, W)."""
    same = same_size(net)
    missing = ((0, 0), (0, -HEIGHT % same.stride), (0, -WIDTH % same.stride))
    padded_CHW = np.pad(blocks(HEIGHT, WIDTH)[0], missing, mode="reflect")
    with torch.inference_mode():
        return same(fed(padded_CHW))[0].numpy()[:, :HEIGHT, :WIDTH]


def counts(labels_HW):
    """Of labels against the truth."""
    expected = Confusion(2)
    expected.add(truth(), labels_HW)
    return expected.counts_TP.tolist()


def labels_of(net, part, spec=SPEC, lib=None, **more):
    """(Q, H, W), put together from answers."""
    whole = np.full((2 if spec.activation == "sigmoid" else 1, HEIGHT, WIDTH), 99, np.uint8)
    for answer in Examiner(net, CPU, lib or library(), spec, **more).answers(part):
        whole[:, *answer.window.slices] = answer.labels_QHW
    return whole


def scores_of(sums):
    """Everything that is told of it; -1 for NaN."""
    names = [name for name, of in vars(Scores).items() if isinstance(of, property)]
    found = {name: np.asarray(getattr(sums, name), float) for name in names}
    return {name: np.where(np.isnan(value), -1, value).tolist() for name, value in found.items()}


# --- samples


def test_a_large_part_is_cut_into_samples(part, monkeypatch):
    """Their counts are those of their squares, and sum to the whole; tiles lie across them."""
    for name, value in (("TILE", 64), ("WHOLE", 100), ("SQUARE", 50)):
        monkeypatch.setattr(f"train.evaluate.{name}", value)
    net = network()
    found = evaluate(net, CPU, [part], library(), SPEC)
    labels_HW = logits_of(net).argmax(axis=0)
    assert found.confusion.counts.tolist() == counts(labels_HW)
    assert [s.window for s in found.samples] == [Window(0, x, 64, x + 50) for x in (0, 50, 100, 150)]
    assert [s.name for s in found.samples] == ["raster", "raster 0,50", "raster 0,100", "raster 0,150"]
    for sample in found.samples:
        one = Confusion(2)
        one.add(truth()[sample.window.slices], labels_HW[sample.window.slices])
        assert scores_of(sample.sums) == scores_of(one)
        assert sample.pixel_m2 == pytest.approx(0.25, rel=0.01)


def test_samples_hold_no_matrices(part, monkeypatch):
    """Four numbers per class, however many classes: of 100,000 samples of 255, 800 MB instead of 52 GB."""
    for name, value in (("WHOLE", 10), ("SQUARE", 8)):
        monkeypatch.setattr(f"train.evaluate.{name}", value)
    names = tuple(map(str, range(200)))
    spec = replace(SPEC, classes=default_classes(names))
    found = evaluate(network(classes=200), CPU, [part], Library(Legend(names)), spec)
    assert len(found.samples) == HEIGHT * WIDTH // 64
    assert len(pickle.dumps(found.samples)) < len(found.samples) * 200 * 40


def test_samples_meet_and_cover():
    part, seen = Window(10, 20, 3000, 1000), np.zeros((3000, 1000), int)
    touched = set(cells(part, part))
    for cell in touched:
        seen[cell.slices] += 1
    assert (seen[10:, 20:] == 1).all()
    assert seen.sum() == part.area
    assert set(cells(part, Window(500, 30, 1100, 31))) < touched


def test_a_sample_looked_at_again_has_the_same_labels(part, monkeypatch):
    monkeypatch.setattr("train.evaluate.TILE", 64)
    net = network()
    whole_QHW, window = labels_of(net, part), Window(7, 93, 51, 160)
    for answer in Examiner(net, CPU, library(), SPEC).answers(part, within=window):
        assert window.contains(answer.window)
        np.testing.assert_array_equal(answer.labels_QHW, whole_QHW[:, *answer.window.slices])


def test_a_sample_without_a_known_pixel_is_none(part, tmp_path, monkeypatch):
    region_1HW = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    region_1HW[..., :60] = 1
    region = write(tmp_path / "region.tif", region_1HW, **PLACE)
    part = replace(part, source=replace(part.source, region=region))
    for name, value in (("WHOLE", 100), ("SQUARE", 50)):
        monkeypatch.setattr(f"train.evaluate.{name}", value)
    found = evaluate(network(), CPU, [part], library(), SPEC)
    assert [s.window.left for s in found.samples] == [0, 50]
    assert found.confusion.pixels == 60 * HEIGHT


@pytest.mark.parametrize(("stride", "halo"), [(16, 96), (48, 336), (64, 448), (64, 640), (1, 0)])
def test_parts_of_any_size_have_tiles(stride, halo):
    """Also where 1024 is no multiple of the stride, or no more than twice the halo."""
    for extent in (1, 1000, 1024, 1025, 5000):
        axis = part_axis(extent, replace(SPEC, stride=stride, halo=halo))
        assert axis.core(0)[0] == 0
        assert axis.core(axis.count - 1)[1] == extent


# --- kinds of networks


def test_a_single_channel_has_a_threshold(part):
    net = network(classes=1)
    shares_HW = 1 / (1 + np.exp(-logits_of(net)[0].astype(np.float64)))
    for threshold in (0.5, float(np.quantile(shares_HW, 0.8))):
        for tta in (False, True):
            spec = replace(SPEC, threshold=threshold)
            labels_HW = labels_of(net, part, spec, tta=tta)[0]
            expected_HW = (mean_of_turns(net)[0] if tta else shares_HW) >= threshold
            assert (labels_HW == expected_HW).mean() > 0.999  # float32 against float64 at the limit
            found = evaluate(net, CPU, [part], library(), spec, tta=tta)
            assert found.confusion.counts.tolist() == counts(labels_HW)


def test_independent_classes_are_counted_on_their_own(part):
    """A pixel may be of both, or of none."""
    net, spec = network(classes=2), replace(SPEC, activation="sigmoid", threshold=0.45)
    found = evaluate(net, CPU, [part], library(independent=True), spec)
    assert isinstance(found.confusion, IndependentConfusion)
    expected = IndependentConfusion(2)
    truth_KHW = np.stack([truth() == 0, truth() == 1]).astype(int)
    labels_KHW = labels_of(net, part, spec, library(independent=True))
    expected.add(truth_KHW, labels_KHW)
    assert found.confusion.counts.tolist() == expected.counts.tolist()
    assert found.confusion.pixels == 2 * HEIGHT * WIDTH
    assert scores_of(found.samples[0].sums) == scores_of(expected)
    assert set(np.unique(labels_KHW.sum(axis=0))) - {1}, "the weights make classes exclusive by chance"


@pytest.mark.parametrize("preset", ["paper", "tf-3x"])
def test_networks_of_other_sizes_score_every_pixel(part, preset):
    """One that loses a margin, one with finer scores: as they are exported."""
    net = network(preset=preset)
    assert net.margin or net.scale > 1
    found = evaluate(net, CPU, [part], library(), SPEC)
    assert found.confusion.pixels == HEIGHT * WIDTH
    labels_HW = logits_of(net).argmax(axis=0)
    assert found.confusion.counts.tolist() == counts(labels_HW)
    assert 0.1 < labels_HW.mean() < 0.9


def test_networks_that_are_not_exact_are_blended(part, monkeypatch):
    """As the tiler blends them: the weighted sum of the logits of overlapping tiles."""
    monkeypatch.setattr("train.evaluate.BLENDED_TILE", 64)
    net = network(preset="milesial-bilinear")
    assert not net.exact
    columns = part_axis(WIDTH, replace(SPEC, exact=False))
    assert (columns.tile, columns.overlap, columns.count) == (64, 16, 4)
    image_1CHW, total_KHW = fed(blocks(HEIGHT, WIDTH)[0]), np.zeros((2, HEIGHT, WIDTH))
    for i, start in enumerate(columns.starts):
        with torch.inference_mode():
            logits_KHW = net(image_1CHW[..., start : start + 64])[0].numpy()
        total_KHW[..., start : start + 64] += logits_KHW * columns.weights(i)
    labels_HW = labels_of(net, part)[0]
    assert (labels_HW == total_KHW.argmax(axis=0)).mean() > 0.999  # rounding, where both are alike
    window = Window(5, 30, 60, 133)
    for answer in Examiner(net, CPU, library(), SPEC).answers(part, within=window):
        np.testing.assert_array_equal(answer.labels_QHW[0], labels_HW[answer.window.slices])
    assert evaluate(net, CPU, [part], library(), SPEC).confusion.counts.tolist() == counts(labels_HW)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["unet", "paper", "milesial-bilinear"])
def test_what_is_evaluated_is_what_is_mapped(tmp_path, preset):
    """Exported and segmented by the command line: exact, wrapped, and blended, on several tiles."""
    from export.cli import main
    from tiler.cli.main import run_command, tiler

    image, labels = write_pair(tmp_path, 600, 1100)
    net = network(preset=preset)
    spec = replace(SPEC, stride=net.stride, halo=net.halo, exact=net.exact)
    save_checkpoint(tmp_path / "best", net, spec)
    assert run_command(main, [str(tmp_path / "best"), str(tmp_path / "n.onnx"), "--raster", str(image)]) == 0
    told = ["segment", str(image), str(tmp_path / "n.onnx"), str(tmp_path / "map.tif"), "--quiet"]
    assert run_command(tiler, told) == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        mapped_HW = dataset.read(1)
    part = Part(Source(Path(image), MaskFile(Path(labels))), Window(0, 0, 600, 1100))
    answers = list(Examiner(net, CPU, library(), spec).answers(part))
    assert sum(answer.window.area for answer in answers) == 600 * 1100
    same = sum(int((a.labels_QHW[0] == mapped_HW[a.window.slices]).sum()) for a in answers)
    assert same / mapped_HW.size > 0.9999  # ties of rounding
    assert 0.1 < mapped_HW.mean() < 0.9


# --- test-time augmentation


def mean_of_turns(net):
    """Probabilities (K, H, W), by numpy, of the whole image."""
    image_CHW, total = blocks(HEIGHT, WIDTH)[0], 0
    for mirrored in (False, True):
        for quarters in range(4):
            view_CHW = image_CHW[:, :, ::-1] if mirrored else image_CHW
            view_CHW = np.rot90(view_CHW, quarters, (1, 2)).copy()
            with torch.inference_mode():
                logits_KHW = net(fed(view_CHW))[0]
                shares_KHW = logits_KHW.sigmoid() if len(logits_KHW) == 1 else logits_KHW.softmax(0)
            back_KHW = np.rot90(shares_KHW.numpy().astype(np.float64), -quarters, (1, 2))
            total = total + (back_KHW[:, :, ::-1] if mirrored else back_KHW)
    return total / 8


def test_turned_views_are_averaged_as_probabilities(part, monkeypatch):
    """Over all eight; also tile by tile."""
    net = network()
    expected_HW = mean_of_turns(net).argmax(axis=0)
    for tile in (1024, 64):
        monkeypatch.setattr("train.evaluate.TILE", tile)
        labels_HW = labels_of(net, part, tta=True)[0]
        assert (labels_HW == expected_HW).mean() > 0.999
    assert (labels_HW != labels_of(net, part)[0]).any()
    found = evaluate(net, CPU, [part], library(), SPEC, tta=True)
    assert found.confusion.counts.tolist() == counts(labels_HW)


# --- figures


def evaluation(*tables):
    """Of samples with these (true positive, false positive, false negative, true negative)."""
    part, total, samples = Part(Source(Path("a.png"), None), Window(0, 0, 1, 1)), Confusion(2), []
    for hits, false, missed, rest in tables:
        one = Confusion(2)
        one.counts[...] = [[rest, false], [missed, hits]]
        total.counts[...] += one.counts
        samples.append(SampleScore(part, part.window, one))
    return Evaluation(total, samples)


def test_means_of_samples_are_not_the_data_set():
    """Intersections over unions of 0.1 and 0.9 have the mean 0.5, and pooled they are 0.8921."""
    found = evaluation((1, 0, 9, 100), (900, 50, 50, 0))
    assert found.sample_mean("iou")[1] == pytest.approx(0.5)
    assert found.confusion.iou[1] == pytest.approx(0.8921, abs=5e-5)


def test_samples_without_a_class_are_left_out_of_its_mean():
    found = evaluation((1, 0, 1, 5), (0, 0, 0, 7))
    assert found.sample_mean("iou")[1] == 0.5
    assert np.isnan(found.per_sample("iou")[1, 1])


def test_ranks_leave_out_samples_of_background_alone():
    found = evaluation((1, 0, 1, 5), (0, 0, 0, 7), (0, 3, 0, 4), (9, 0, 1, 0))
    assert [s.score for s in found.ranked()] == pytest.approx([0, 0.5, 0.9])
    assert np.isnan(found.samples[1].score)


def test_unknown_pixels_count_nowhere(part, monkeypatch):
    read = Library.open

    def half_known(self, source):
        labelled = read(self, source)
        return replace(labelled, region=labelled.labels)  # known where the label is not 0

    monkeypatch.setattr(Library, "open", half_known)
    found = evaluate(network(), CPU, [part], library(), SPEC)
    assert found.confusion.true.tolist() == [0, int(truth().sum())]
    assert IGNORE not in range(len(NAMES))
