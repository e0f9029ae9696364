"""Mistakes in the metrics of the systems that this project replaces, none of which may come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiler.errors import InputError
from tiler.metrics import Confusion, IndependentConfusion, mean_present

torch = pytest.importorskip("torch")

from tiler.geometry import Window  # noqa: E402
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train.data.labelled import Library, Part, Source  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.data.maskfile import MaskFile  # noqa: E402
from train.evaluate import Examiner, evaluate, shares_of, turned  # noqa: E402
from train.evaluation import Evaluation, SampleScore  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.report.palette import voc_color  # noqa: E402
from training_data import blocks, write  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CPU = torch.device("cpu")
SCORES = ("iou", "dice", "precision", "recall", "class_accuracy", "specificity")


def confusion(truth, predicted, classes=2):
    """Of two label arrays."""
    found = Confusion(classes)
    found.add(np.array(truth), np.array(predicted))
    return found


def evaluation(*samples):
    """Of (truth, prediction) pairs."""
    part, total, scores = Part(Source(Path("a.png"), None), Window(0, 0, 1, 1)), Confusion(2), []
    for truth, predicted in samples:
        total.add(np.array(truth), np.array(predicted))
        scores.append(SampleScore(part, part.window, confusion(truth, predicted)))
    return Evaluation(total, scores)


def spec(**more):
    """Of three bands of bytes."""
    return ModelSpec(("r", "g", "b"), default_classes(("background", "building")), **more)


def part_of(folder, height, width):
    """A whole image."""
    raw_CHW, mask_1HW = blocks(height, width)
    image, labels = write(folder / "i.png", raw_CHW), write(folder / "m.png", mask_1HW)
    return Part(Source(image, MaskFile(labels)), Window(0, 0, height, width))


def library():
    """Of two classes."""
    return Library(Legend(("background", "building")))


# --- closed forms


def test_scores_of_a_known_matrix():
    """[[50, 5], [10, 35]]."""
    found = Confusion(2)
    found.counts[...] = [[50, 5], [10, 35]]
    assert found.iou == pytest.approx([0.769231, 0.7], abs=1e-6)
    assert found.mean_iou == pytest.approx(0.734615, abs=1e-6)
    assert found.accuracy == pytest.approx(0.85)
    assert found.recall == pytest.approx([0.909091, 0.777778], abs=1e-6)
    assert found.precision == pytest.approx([0.833333, 0.875], abs=1e-6)
    assert found.dice == pytest.approx([0.869565, 0.823529], abs=1e-6)
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    assert found.specificity == pytest.approx(found.recall[::-1])
    assert found.class_accuracy == pytest.approx([0.85, 0.85])
    assert (found.object_iou, found.object_dice) == (found.iou[1], found.dice[1])


def test_independent_classes_agree_with_two_exclusive_ones():
    truth_HW, predicted_HW = np.random.default_rng(0).integers(0, 2, (2, 9, 9))
    one, both = confusion(truth_HW, predicted_HW), IndependentConfusion(1)
    both.add(truth_HW[None], predicted_HW[None])
    for score in SCORES:
        assert getattr(both, score)[0] == getattr(one, score)[1]
    assert both.pixels == one.pixels
    assert both.object_dice == one.object_dice


# --- D-2: the cropland system


@pytest.mark.parametrize("size", [(3, 5), (256, 256), (300, 200)])
def test_d2_1_images_have_any_size_and_values_are_classes(size):
    """The seed's loop was for 256 x 256, and any value but 0 and 255 counted as a true negative."""
    truth_HW = np.zeros(size, np.int64)
    assert confusion(truth_HW, truth_HW).counts.tolist() == [[truth_HW.size, 0], [0, 0]]
    with pytest.raises(InputError, match="got 7"):
        confusion(truth_HW, truth_HW + 7)


def test_d2_2_means_of_samples_and_of_the_data_set_have_names():
    """The seed called the mean over images "mIoU"; both are given, and differ."""
    found = evaluation(
        ([1] * 10, [1] + [0] * 9), ([1] * 900 + [1] * 50 + [0] * 50, [1] * 900 + [0] * 50 + [1] * 50)
    )
    assert found.sample_mean("iou")[1] == pytest.approx(0.5)
    assert found.confusion.iou[1] == pytest.approx(0.8921, abs=5e-5)


# --- D-3: milesial and WZMIAOMIAO


def test_d3_1_one_channel_is_evaluated(tmp_path):
    """The seed asserted on (N, 1, H, W) against (N, H, W)."""
    torch.manual_seed(0)
    net = make("unet", 3, 1, width=4, depth=1)
    found = evaluate(net, CPU, [part_of(tmp_path, 16, 20)], library(), spec())
    assert found.confusion.pixels == 16 * 20


def test_d3_4_the_threshold_holds_for_every_kind_of_sigmoid(tmp_path):
    """The seed ignored it for two or more classes."""
    torch.manual_seed(0)
    net, part = make("unet", 3, 2, width=4, depth=1), part_of(tmp_path, 16, 20)
    independent = Library(Legend(("background", "building"), independent=True))
    least, most = (
        evaluate(net, CPU, [part], independent, spec(activation="sigmoid", threshold=limit)).confusion
        for limit in (0.01, 0.99)
    )
    assert least.predicted.tolist() == [320, 320]
    assert most.predicted.tolist() == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_d3_9_no_image_of_a_small_set_is_dropped(tmp_path, count):
    """The seed's loader dropped the last batch: a set smaller than one scored 0."""
    torch.manual_seed(0)
    net, part = make("unet", 3, 2, width=4, depth=1), part_of(tmp_path, 16, 20)
    found = evaluate(net, CPU, [part] * count, library(), spec())
    assert found.confusion.pixels == count * 320
    assert len(found.samples) == count


def test_d3_10_a_picture_of_one_channel_is_not_its_argmax(tmp_path):
    """The seed logged the argmax over one channel, always 0, and hid the error."""
    torch.manual_seed(0)
    net, part = make("unet", 3, 1, width=4, depth=1).eval(), part_of(tmp_path, 16, 20)
    with torch.no_grad():
        net.head.bias.fill_(50)
    (answer,) = Examiner(net, CPU, library(), spec()).answers(part)
    assert (answer.labels_QHW == 1).all()


def test_d3_13_counts_begin_anew():
    """The seed's reset raised AttributeError; here nothing is reset: each evaluation has its own counts."""
    found = confusion([0, 1], [0, 0])
    assert Confusion(2).pixels == 0
    assert found.pixels == 2


def test_d3_20_an_absent_class_does_not_poison_the_mean():
    """The seed's mean of a NaN was NaN."""
    found = confusion([0, 0, 1], [0, 1, 1], classes=3)
    assert np.isnan(found.iou[2])
    assert found.mean_iou == pytest.approx(0.5)
    assert found.mean_dice == pytest.approx(2 / 3)
    assert np.isnan(mean_present(np.array([np.nan])))


def test_d3_21_counts_of_shares_sum_to_the_whole(tmp_path):
    """The seed padded the validation set with duplicates; shares of parts add up to one evaluation."""
    torch.manual_seed(0)
    net, part = make("unet", 3, 2, width=4, depth=1), part_of(tmp_path, 16, 20)
    small = Part(part.source, Window(0, 0, 8, 20))
    parts = [part, small, small]
    whole = evaluate(net, CPU, parts, library(), spec()).confusion
    shares = [evaluate(net, CPU, parts[rank::2], library(), spec()).confusion for rank in range(2)]
    shares[0].counts[...] += shares[1].counts
    assert shares[0].counts.tolist() == whole.counts.tolist()


def test_d3_23_background_alone_is_no_perfect_sample():
    """The seed's Dice of empty against empty was 1, so images without an object raised the mean."""
    found = evaluation(([1, 1], [1, 0]), ([0, 0], [0, 0]), ([0, 0], [0, 0]))
    assert found.sample_mean("dice")[1] == pytest.approx(2 / 3)
    assert [sample.score for sample in found.ranked()] == [0.5]


# --- D-4: bubbliiiing


def test_d4_4_the_largest_of_many_classes_wins_however_small():
    """The seed asked for a softmax above 0.5, which of five classes often none has."""
    logits_NKHW = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.4])[None, :, None, None]
    shares_NKHW = shares_of(logits_NKHW, independent=False)
    assert float(shares_NKHW.max()) < 0.5
    labels = int(shares_NKHW.argmax(dim=1))
    assert confusion([4], [labels], classes=5).hits.tolist() == [0, 0, 0, 0, 1]


def test_d4_8_an_absent_class_is_nan_not_zero():
    """The seed divided by max(size, 1), so that no class was ever left out of the mean."""
    found = confusion([0, 0], [0, 0], classes=2)
    assert np.isnan(found.iou[1])
    assert found.mean_iou == 1


def test_d4_10_what_is_best_is_told_by_iou_or_dice():
    """The seed kept the weights of the lowest loss; means to choose by are those of what occurs."""
    better, worse = confusion([0, 0, 1, 1], [0, 0, 1, 0]), confusion([0, 0, 1, 1], [0, 1, 1, 0])
    assert better.mean_iou > worse.mean_iou
    assert better.mean_dice > worse.mean_dice


def test_d4_14_sizes_that_differ_are_an_error():
    """The seed skipped such images with a printed line, and scored the rest."""
    with pytest.raises(InputError, match=r"\(2, 3\) and \(1, 3\)"):
        confusion(np.zeros((2, 3)), np.zeros((1, 3)))


def test_d4_15_colours_are_those_of_the_challenge():
    """The seed's palette had (128, 64, 12) for entry 21."""
    assert voc_color(21) == (128, 64, 128)


# --- D-5 to D-7


def test_d5_1_a_label_is_not_compared_with_itself(tmp_path):
    """The seed's first metric compared the label with itself, its last went by rows of the image."""
    net = make("unet", 3, 2, width=4, depth=1)
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([50.0, -50.0]))
    found = evaluate(net, CPU, [part_of(tmp_path, 40, 40)], library(), spec())
    truth = int(blocks(40, 40)[1].sum())
    assert truth
    assert found.confusion.counts.tolist() == [[1600 - truth, 0], [truth, 0]]
    rows = confusion([[0, 0, 0, 0], [0, 0, 1, 1]], [[0, 0, 0, 0], [0, 1, 1, 0]])
    assert rows.iou == pytest.approx([0.714286, 0.333333], abs=1e-6)


def test_d5_6_previews_do_not_overflow():
    """The seed showed index * 255 in uint8, where 2 is 254 and 3 is 253."""
    colors = [kind.color for kind in default_classes(tuple("abcdefgh"))]
    assert len(set(colors)) == 8


def test_d6_5_scores_do_not_depend_on_how_pixels_come():
    """The seed pooled per batch and averaged batches."""
    rng = np.random.default_rng(0)
    truth_N, predicted_N = rng.integers(0, 2, (2, 60))
    whole = confusion(truth_N, predicted_N)
    for size in (7, 30, 59):
        parts = Confusion(2)
        for start in range(0, 60, size):
            parts.add(truth_N[start : start + size], predicted_N[start : start + size])
        assert parts.counts.tolist() == whole.counts.tolist()


def test_d7_1_a_perfect_mask_scores_one():
    """The seed's scores were all 0: bool + bool is a disjunction, and never 2."""
    mask_HW = np.array([[True, False], [False, True]])
    found = confusion(mask_HW.astype(int), mask_HW.astype(int))
    for score in SCORES:
        assert getattr(found, score).tolist() == [1.0, 1.0]


def test_d7_2_black_truth_is_black():
    """The seed took "equal to its maximum" for truth: of an all-black mask everything."""
    found = confusion(np.zeros(9, int), np.zeros(9, int))
    assert found.accuracy == 1
    assert found.true.tolist() == [9, 0]
    assert np.isnan(found.recall[1])


@pytest.mark.parametrize("logit", [-0.6, -0.1, 0.1, 0.4, 0.6])
def test_d7_3_probabilities_are_thresholded_not_logits(tmp_path, logit):
    """The seed compared logits with 0.5 while it trained."""
    torch.manual_seed(0)
    net, part = make("unet", 3, 1, width=4, depth=1).eval(), part_of(tmp_path, 16, 20)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.fill_(logit)
    (answer,) = Examiner(net, CPU, library(), spec()).answers(part)
    assert (answer.labels_QHW == (logit >= 0)).all()


def test_d7_4_means_are_over_samples_that_were_averaged():
    """The seed divided sums over batches by the number of images."""
    found = evaluation(*[([1, 1], [1, 0])] * 5)
    assert found.sample_mean("iou")[1] == pytest.approx(0.5)


def test_d7_9_dice_is_of_the_precision_and_recall_beside_it():
    """The seed's F1 (.647) was not that of its PC and SE (.742): one was a mean of images."""
    found = confusion([0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 1])
    harmonic = 2 * found.precision * found.recall / (found.precision + found.recall)
    assert found.dice == pytest.approx(harmonic)


# --- D-9: averaging


def test_d9_6_turned_views_average_probabilities_not_logits():
    """One of the seeds resized probabilities, the other logits; here it is probabilities, and stated."""
    logits = iter([8.0, -1, -1, -1, -1, -1, -1, -1])

    def shares(pixels_NCHW):
        return shares_of(torch.full_like(pixels_NCHW, next(logits)), independent=False)

    mean = float(turned(shares, torch.zeros(1, 1, 1, 1)))
    expected = np.mean([1 / (1 + np.exp(-z)) for z in (8.0, *[-1] * 7)])
    assert mean == pytest.approx(expected)
    assert mean < 0.5 < 1 / (1 + np.exp(-np.mean([8.0, *[-1] * 7])))


def test_d9_7_the_decision_comes_last():
    """Labels of views are not voted on: one sure view outweighs two that hardly lean the other way."""
    logits = iter([3.0, -0.1, -0.1, 3.0, -0.1, -0.1, -0.1, -0.1])

    def shares(pixels_NCHW):
        return shares_of(torch.full_like(pixels_NCHW, next(logits)), independent=False)

    assert float(turned(shares, torch.zeros(1, 1, 1, 1))) > 0.5
