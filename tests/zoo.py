"""Small graphs, one peculiarity each, and what their outputs depend on: found by trying, not by formula.

All weights are positive, and so are the pixels, so that nothing is masked by a ReLU or cancels out.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(3)


class Builder:
    """A chain of operators; ``x`` is the image and every call returns the name of what it made."""

    def __init__(self, bands=1, opset=17, dims=None, seed=0):
        self.bands, self.opset, self.dims = bands, opset, dims or ["n", bands, "h", "w"]
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], {}

    def weight(self, value):
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value)
        return name

    def integers(self, *values):
        return self.weight(np.array(values, np.int64))

    def random(self, *shape):
        return self.weight((self.rng.uniform(0.5, 1.5, shape) / np.sqrt(np.prod(shape))).astype(np.float32))

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [f"{op.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0][:-2], **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, channels=(1, 1), kernel=3, **attributes):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        inputs, outputs = channels
        inputs //= attributes.get("group", 1)
        return self("Conv", x, self.random(outputs, inputs, *kernel), **attributes)

    def same(self, x, channels=(1, 1)):
        """A 3x3 convolution with zero padding."""
        return self.conv(x, channels, pads=[1] * 4)

    def up(self, x, kernel=2, **attributes):
        return self("ConvTranspose", x, self.random(1, 1, kernel, kernel), **attributes)

    def model(self, result, kind=TensorProto.FLOAT) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.dims)],
            [helper.make_tensor_value_info(result, kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def runner(proto: onnx.ModelProto, bands=None):
    """A function from pixels (H, W) or (C, H, W) to scores (K, H, W), computed by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # failing is among what is tried
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(pixels_CHW):
        return session.run(None, {name: pixels_CHW[None].astype(np.float32)})[0][0]

    return run


def pixels(bands, rows, columns, seed=0):
    """Positive noise (C, H, W)."""
    return np.random.default_rng(seed).uniform(0.5, 1.5, (bands, rows, columns)).astype(np.float32)


def close(a, b, tolerance=2e-5):
    """Whether two arrays are equal but for rounding."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()))


def agree(run, whole, axis, start, length, dim=-1, halo=None):
    """Whether a tile's scores, but for those near its edges that are no edges of the image, are the whole's.

    ``whole`` is (pixels, scores); ``axis`` an AxisReach; ``dim`` -2 for rows, -1 for columns.
    """
    image, scores = whole
    tile = run(np.take(image, range(start, start + length), dim))
    before, after = halo or (axis.before, axis.after)
    margin = axis.margin_before / axis.scale
    block = int(axis.stride * axis.scale)
    first = 0 if start == 0 else block * math.ceil((before - margin) / axis.stride)
    last = block * math.floor((length - after - margin) / axis.stride)
    last = tile.shape[dim] if start + length == image.shape[dim] else last
    keep = range(first, last)
    assert keep, "the test's tile is too small"
    offset = int(start * axis.scale)
    return close(np.take(tile, keep, dim), np.take(scores, [offset + i for i in keep], dim))


def dependence(run, axis, bands, length, core, dim=-1, other=None):
    """Input pixels before and after a core that its scores change with: every pixel is tried.

    ``core`` is the first input pixel of a stride's worth of scores.
    """
    other = other or length
    shape = (length, other) if dim == -2 else (other, length)
    image = pixels(bands, *shape)
    whole = run(image)
    first = int((core - axis.margin_before / axis.scale) * axis.scale)
    scores = range(first, first + int(axis.stride * axis.scale))
    touched = []
    for i in range(length):
        changed = image.copy()
        np.moveaxis(changed, dim, 0)[i] += 1e6
        if not np.array_equal(np.take(run(changed), scores, dim), np.take(whole, scores, dim)):
            touched.append(i)
    return core - min(touched), max(touched) - (core + axis.stride - 1)


EXACT, INEXACT = {}, {}
"""Name -> function that builds the graph; for inexact ones with a part of the reason."""


def exact(function):
    EXACT[function.__name__] = function
    return function


def inexact(reason):
    def register(function):
        INEXACT[function.__name__] = function, reason
        return function

    return register


@exact
def conv():
    b = Builder()
    return b.model(b.same("x"))


@exact
def conv_dilated_grouped():
    b = Builder(bands=2)
    return b.model(b.conv("x", (2, 2), (3, 5), dilations=[2, 1], pads=[2, 2, 2, 2], group=2))


@exact
def conv_lopsided_pads():
    b = Builder()
    return b.model(b.conv("x", kernel=4, pads=[1, 3, 2, 0]))


@exact
def conv_valid():
    b = Builder()
    return b.model(b.conv(b.conv("x"), kernel=2))


@exact
def conv_same_upper():
    b = Builder()
    return b.model(b.up(b.conv("x", strides=[2, 2], auto_pad="SAME_UPPER"), strides=[2, 2]))


@exact
def conv_same_lower():
    b = Builder()
    return b.model(b.up(b.conv("x", kernel=4, strides=[3, 3], auto_pad="SAME_LOWER"), 3, strides=[3, 3]))


@exact
def conv_rows_only():
    b = Builder()
    x = b.conv("x", kernel=(3, 1), strides=[2, 1], pads=[1, 0, 1, 0])
    scales = b.weight(np.array([1, 1, 2, 1], np.float32))
    return b.model(b("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric"))


@exact
def transposed_overlapping():
    b = Builder()
    x = b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.up(x, 3, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]))


@exact
def transposed_four():
    b = Builder()
    x = b("MaxPool", b.same("x"), kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.same(b.up(x, 4, strides=[2, 2], pads=[1, 1, 1, 1])))


@exact
def transposed_dilated():
    b = Builder()
    x = b("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.up(x, 2, strides=[2, 2], dilations=[3, 3], pads=[1, 1, 1, 1]))


@exact
def transposed_same():
    b = Builder()
    x = b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.up(x, 4, strides=[2, 2], auto_pad="SAME_UPPER"))


@exact
def transposed_same_odd():
    """One element is cut off, at the start or at the end."""
    b = Builder()
    x = b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    upper = b.up(x, 3, strides=[2, 2], auto_pad="SAME_UPPER")
    return b.model(b("Concat", upper, b.same("x"), axis=1))


@exact
def transposed_same_lower():
    b = Builder()
    x = b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.up(x, 3, strides=[2, 2], auto_pad="SAME_LOWER"))


@exact
def pool_into_the_padding():
    """The last window would begin in the padding and is left out."""
    b = Builder()
    return b.model(b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1))


@exact
def max_pool_ceil():
    b = Builder()
    x = b("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return b.model(b.same(b.up(x, 2, strides=[2, 2])))


@exact
def average_pool_padded():
    b = Builder()
    x = b("AveragePool", "x", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=0)
    return b.model(b("LpPool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1]))


def resized(scale, opset=17, pool=1, conv=True, **attributes):
    b = Builder(opset=opset)
    x = b("AveragePool", "x", kernel_shape=[pool, pool], strides=[pool, pool]) if pool > 1 else "x"
    x = b.same(x) if conv else x
    scales = b.weight(np.array([1, 1, scale, scale], np.float32))
    roi = b.weight(np.zeros(0, np.float32)) if opset in (11, 12) else ""
    op = "Upsample" if opset < 10 else "Resize"
    return b.model(b(op, x, *([roi] if opset > 10 else []), scales, **attributes))


for _mode in ("half_pixel", "pytorch_half_pixel", "asymmetric", "half_pixel_symmetric"):
    for _how in ("nearest", "linear", "cubic"):
        for _scale, _pool in ((2, 2), (3, 3), (1.5, 3), (0.5, 1), (0.75, 1)):
            if _mode == "half_pixel_symmetric" and _how == "cubic":
                continue
            EXACT[f"resize_{_how}_{_mode}_{_scale}"] = partial(
                resized, _scale, 19, _pool, mode=_how, coordinate_transformation_mode=_mode
            )
for _rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
    for _mode in ("half_pixel", "asymmetric"):
        for _scale, _pool in ((2, 2), (0.5, 1), (1.5, 3)):
            EXACT[f"resize_{_rounding}_{_mode}_{_scale}"] = partial(
                resized,
                _scale,
                13,
                _pool,
                mode="nearest",
                coordinate_transformation_mode=_mode,
                nearest_mode=_rounding,
            )
for _how in ("linear", "cubic"):
    EXACT[f"resize_antialias_{_how}"] = partial(resized, 0.5, 18, mode=_how, antialias=1)
EXACT["resize_tf_nearest"] = partial(
    resized, 2, 11, 2, mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn"
)
EXACT["resize_10_nearest"] = partial(resized, 2, 10, 2, mode="nearest")
EXACT["resize_10_down"] = partial(resized, 0.5, 10, mode="nearest")
EXACT["resize_10_down_uneven"] = partial(resized, 0.75, 10, mode="nearest")
EXACT["resize_10_linear"] = partial(resized, 2, 10, 2, mode="linear")
EXACT["upsample_9_nearest"] = partial(resized, 2, 9, 2, mode="nearest")
EXACT["upsample_9_linear"] = partial(resized, 2, 9, 2, mode="linear")


@exact
def resize_to_the_skip():
    """As exporters write it: the target size is the shape of another tensor."""
    b = Builder()
    skip = b.same("x")
    deep = b.same(b("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2]))
    tail = b("Slice", b("Shape", skip), b.integers(2), b.integers(4), b.integers(0))
    head = b("Slice", b("Shape", deep), b.integers(0), b.integers(2), b.integers(0))
    size = b("Concat", head, tail, axis=0)
    x = b("Resize", deep, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")
    return b.model(b.same(b("Concat", skip, x, axis=1), (2, 1)))


@exact
def pad_reflect():
    b = Builder()
    x = b("Pad", "x", b.integers(0, 0, 2, 2, 0, 0, 2, 2), mode="reflect")
    return b.model(b.conv(x, kernel=5))


def picked_as_a_mirror(b, x, axis, before, after):
    """Elements picked by computed positions: a mirror that repeats where the image is small."""
    last = b("Sub", b("Gather", b("Shape", x), b.weight(np.int64(axis))), b.weight(np.int64(1)))
    end = b("Add", last, b.weight(np.int64(after + 1)))
    there = b("Range", b.weight(np.int64(-before)), end, b.weight(np.int64(1)))
    folded = b("Mod", there, b("Mul", last, b.weight(np.int64(2))))
    places = b("Sub", last, b("Abs", b("Sub", folded, last)))
    return b("Gather", x, places, axis=axis)


@exact
def gather_mirrored():
    b = Builder()
    x = picked_as_a_mirror(b, picked_as_a_mirror(b, "x", 2, 3, 5), 3, 4, 2)
    return b.model(b.conv(x, kernel=(9, 7)))


@exact
def pad_edge_and_cut():
    b = Builder()
    x = b("Pad", "x", b.integers(0, 0, 3, 1, 0, 0, -2, 1), mode="edge")
    return b.model(b.conv(x, kernel=(2, 3)))


@exact
def crop_start_and_end():
    b = Builder()
    x = b("Slice", b.same("x"), b.integers(2, 1), b.integers(-3, 2**31 - 1), b.integers(2, 3))
    return b.model(x)


@exact
def crop_the_skip():
    """A skip cropped to what convolutions without padding left."""
    b = Builder()
    skip = b.conv("x")
    deep = b.conv(b("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2]))
    up = b.up(deep, 2, strides=[2, 2])
    cut = b("Slice", skip, b.integers(2, 2), b.integers(-2, -2), b.integers(2, 3))
    return b.model(b.conv(b("Concat", cut, up, axis=1), (2, 1)))


@exact
def every_second():
    b = Builder()
    x = b(
        "Slice",
        b.same("x"),
        b.integers(1, 0),
        b.integers(2**31 - 1, 2**31 - 1),
        b.integers(2, 3),
        b.integers(2, 2),
    )
    return b.model(x)


@exact
def misaligned_branches():
    b = Builder()
    left = b.conv("x", kernel=5, pads=[0, 0, 4, 4])
    right = b.conv("x", kernel=3, pads=[2, 2, 0, 0])
    return b.model(b("Add", left, right))


@exact
def rational_scales_meet():
    """Strides 2 and 3 meet at 6."""
    b = Builder()
    two = b.up(b("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]), 2, strides=[2, 2])
    three = b.up(b("MaxPool", "x", kernel_shape=[3, 3], strides=[3, 3]), 3, strides=[3, 3])
    return b.model(b("Add", two, three))


@exact
def pixel_shuffle():
    b = Builder()
    x = b("DepthToSpace", b.same("x", (1, 8)), blocksize=2, mode="CRD")
    return b.model(b.same(x, (2, 1)))


@exact
def pixel_unshuffle():
    b = Builder()
    x = b.same(b("SpaceToDepth", "x", blocksize=4), (16, 16))
    return b.model(b("DepthToSpace", x, blocksize=4))


@exact
def pixel_shuffle_by_hand():
    """Reshape, transpose, reshape, with sizes from the shape."""
    b = Builder()
    x = b.same("x", (1, 4))
    rows = b("Gather", b("Shape", x), b.integers(2), axis=0)
    columns = b("Gather", b("Shape", x), b.integers(3), axis=0)
    x = b("Reshape", x, b("Concat", b.integers(-1, 1, 2, 2), rows, columns, axis=0))
    x = b("Transpose", x, perm=[0, 1, 4, 2, 5, 3])
    two = b.integers(2)
    x = b("Reshape", x, b("Concat", b.integers(-1, 1), b("Mul", rows, two), b("Mul", columns, two), axis=0))
    return b.model(b.same(x))


@exact
def tokens_without_attention():
    """Flattened to tokens, a layer per token, and back: SegFormer's head."""
    b = Builder(bands=2)
    shape = b("Shape", b.same("x", (2, 4)))
    x = b("Reshape", b.nodes[0].output[0], b.integers(0, 0, -1))
    x = b("MatMul", b("Transpose", x, perm=[0, 2, 1]), b.random(4, 3))
    x = b("Add", x, b.random(3))
    ends = b("Slice", shape, b.integers(2), b.integers(4))
    x = b("Transpose", x, perm=[0, 2, 1])
    return b.model(b("Reshape", x, b("Concat", b.integers(1, 3), ends, axis=0)))


@exact
def window_attention():
    """Every cell of 4 x 4 pixels by itself."""
    b = Builder()
    x = b("SpaceToDepth", "x", blocksize=4)
    x = b("Transpose", x, perm=[0, 2, 3, 1])
    x = b("Unsqueeze", x, b.integers(4))
    x = b("MatMul", b("MatMul", x, b("Transpose", x, perm=[0, 1, 2, 4, 3])), x)
    x = b("Transpose", b("Squeeze", x, b.integers(4)), perm=[0, 3, 1, 2])
    return b.model(b("DepthToSpace", x, blocksize=4))


@exact
def channels_last_norm():
    """Layer norm and softmax over channels, and what else leaves places alone."""
    b = Builder(bands=3)
    x = b("Transpose", b.same("x", (3, 4)), perm=[0, 2, 3, 1])
    x = b("LayerNormalization", x, b.random(4), b.random(4), axis=-1)
    x = b("Transpose", x, perm=[0, 3, 1, 2])
    one, two = b("Split", b("Softmax", x, axis=1), outputs=2, axis=1)
    x = b("Gather", b("Concat", two, one, axis=1), b.integers(3, 0), axis=1)
    x = b("Sub", x, b("ReduceMean", x, axes=[1]))
    return b.model(
        b("PRelu", b("Clip", x, b.weight(np.float32(-9)), b.weight(np.float32(9))), b.random(2, 1, 1))
    )


@exact
def batch_norm():
    b = Builder(bands=2)
    x = b("BatchNormalization", b.same("x", (2, 2)), *(b.random(2) for _ in range(4)))
    return b.model(b("Dropout", b("LeakyRelu", x)))


@exact
def quantised():
    """As static quantisation leaves it; sampled coarsely, so a pixel more or less is seen."""
    b = Builder()
    scale, zero = b.weight(np.float32(0.01)), b.weight(np.uint8(0))
    x = b("DequantizeLinear", b("QuantizeLinear", "x", scale, zero), scale, zero)
    codes = b.weight(b.rng.integers(50, 99, (2, 1, 3, 3)).astype(np.int8))
    per_channel = b.weight(np.array([0.001, 0.002], np.float32))
    kernel = b("DequantizeLinear", codes, per_channel, b.weight(np.zeros(2, np.int8)), axis=0)
    return b.model(b("Conv", x, kernel, pads=[1] * 4, kernel_shape=[3, 3]))


@exact
def fixed_size():
    """Declared for one size only; the same graph works at all."""
    b = Builder(dims=[1, 1, 64, 64])
    x = b.up(b("MaxPool", b.same("x"), kernel_shape=[2, 2], strides=[2, 2]), strides=[2, 2])
    return b.model(x)


@exact
def tight_by_an_inner_tensor():
    """What is cut off and padded again is lost only at a tile's end: the input alone does not show it."""
    b = Builder()
    x = b("Slice", b.same("x"), b.integers(0, 0), b.integers(-5, -5), b.integers(2, 3))
    return b.model(b("Pad", x, b.integers(0, 0, 0, 0, 0, 0, 5, 5)))


@inexact("'instancenormalization1' averages over the whole tile")
def instance_norm():
    b = Builder()
    return b.model(b("InstanceNormalization", b.same("x", (1, 2)), b.random(2), b.random(2)))


@inexact("InstanceNormalization 'instancenormalization2' averages over the whole tile")
def group_norm_by_hand():
    b = Builder()
    x = b.same("x", (1, 4))
    y = b("InstanceNormalization", b("Reshape", x, b.integers(0, 2, -1)), b.random(2), b.random(2))
    x = b("Reshape", y, b("Shape", x))
    return b.model(b("Mul", x, b.random(4, 1, 1)))


@inexact("GroupNormalization 'groupnormalization1' averages over the whole tile")
def group_norm():
    b = Builder(opset=21)
    return b.model(b("GroupNormalization", b.same("x", (1, 4)), b.random(4), b.random(4), num_groups=2))


@inexact("GlobalAveragePool 'globalaveragepool1'")
def squeeze_and_excite():
    b = Builder()
    x = b.same("x", (1, 2))
    return b.model(b("Mul", x, b("Sigmoid", b.conv(b("GlobalAveragePool", x), (2, 2), 1))))


@inexact("ReduceMean 'reducemean0' averages over the whole tile")
def mean_of_rows():
    b = Builder()
    return b.model(b("Sub", "x", b("ReduceMean", "x", axes=[2, 3])))


@inexact("Resize 'resize1' has align_corners")
def align_corners():
    return resized(2, 17, 1, mode="linear", coordinate_transformation_mode="align_corners")


@inexact("Softmax 'softmax0' sums over the whole tile")
def softmax_before_opset_13():
    b = Builder(opset=11, bands=2)
    return b.model(b("Softmax", "x", axis=1))


@inexact("Softmax 'softmax0' sums over the whole tile")
def softmax_along_columns():
    b = Builder(bands=2)
    return b.model(b("Softmax", "x", axis=-1))


@inexact("Softmax 'softmax0' sums over the batch")
def softmax_along_the_batch():
    b = Builder()
    return b.model(b("Softmax", "x", axis=0))


@inexact("Pad 'pad0' wraps")
def pad_wrap():
    b = Builder(opset=19)
    return b.model(b.conv(b("Pad", "x", b.integers(0, 0, 1, 1, 0, 0, 1, 1), mode="wrap")))


@inexact("picks rows or columns by their position")
def gather_turned():
    b = Builder()
    count = b("Gather", b("Shape", "x"), b.weight(np.int64(3)))
    there = b("Range", b.weight(np.int64(0)), count, b.weight(np.int64(1)))
    places = b("Sub", b("Sub", count, b.weight(np.int64(1))), there)
    return b.model(b.same(b("Gather", "x", places, axis=3)))


def picked_from_the_other_end(places):
    """Of columns; ``places`` makes indices of a builder, the positions -2 to n + 1, and n."""
    b = Builder()
    count = b("Gather", b("Shape", "x"), b.weight(np.int64(3)))
    end = b("Add", count, b.weight(np.int64(2)))
    there = b("Range", b.weight(np.int64(-2)), end, b.weight(np.int64(1)))
    return b.model(b.conv(b("Gather", "x", places(b, there, count), axis=3), kernel=(1, 5)))


@inexact("picks rows or columns by their position")
def gather_wrapped():
    return picked_from_the_other_end(lambda b, there, count: b("Mod", there, count))


@inexact("picks rows or columns by their position")
def gather_wrapped_by_negative_positions():
    """Those count from the end."""
    return picked_from_the_other_end(lambda b, there, count: b("Mod", there, count, fmod=1))


@inexact("is attention over the whole tile")
def attention():
    b = Builder(bands=2)
    shape = b("Shape", "x")
    tokens = b("Transpose", b("Reshape", "x", b.integers(0, 0, -1)), perm=[0, 2, 1])
    scores = b("MatMul", tokens, b("Transpose", tokens, perm=[0, 2, 1]))
    mixed = b("MatMul", b("Softmax", scores, axis=-1), tokens)
    return b.model(b("Reshape", b("Transpose", mixed, perm=[0, 2, 1]), shape))


@inexact("MatMul 'matmul3' is attention over the whole tile")
def linear_attention():
    """Keys and values meet first, so that no position is compared with another."""
    b = Builder(bands=2)
    keys = b("Reshape", "x", b.integers(0, 0, -1))
    tokens = b("Transpose", keys, perm=[0, 2, 1])
    shape = b("Shape", "x")
    mixed = b("MatMul", tokens, b("MatMul", keys, tokens))
    return b.model(b("Reshape", b("Transpose", mixed, perm=[0, 2, 1]), shape))


@inexact("MatMul 'matmul0' mixes all positions along rows or columns")
def dense_along_columns():
    b = Builder(dims=[1, 1, 32, 64])
    return b.model(b("MatMul", "x", b.random(64, 64)))


@inexact("LayerNormalization 'layernormalization0' averages over the whole tile")
def layer_norm_of_columns():
    b = Builder(dims=[1, 1, 32, 64])
    return b.model(b("LayerNormalization", "x", b.random(64), axis=-1))


@inexact("DynamicQuantizeLinear 'dynamicquantizelinear0' scales by the whole tile's range")
def dynamic_quantisation():
    b = Builder()
    y, scale, zero = b("DynamicQuantizeLinear", "x", outputs=3)
    return b.model(b("DequantizeLinear", y, scale, zero))


@inexact("Div 'div3' depends on the size")
def divided_by_its_size():
    b = Builder()
    size = b("Cast", b("Size", "x"), to=TensorProto.FLOAT)
    return b.model(b("Div", b("Identity", "x"), size))


@inexact("Slice 'slice3' depends on the size")
def begins_in_the_middle():
    b = Builder()
    middle = b("Div", b("Shape", "x", start=3, end=4), b.integers(2))
    b("Identity", "x")
    return b.model(b("Slice", "x", middle, b.integers(2**31 - 1), b.integers(3)))


@inexact("Slice 'slice0' turns columns around")
def mirrored():
    b = Builder()
    return b.model(b("Slice", "x", b.integers(-1), b.integers(-(2**62)), b.integers(3), b.integers(-1)))


def unproven(op, domain="", **attributes):
    """One operator that nothing is known of."""
    b = Builder()
    x = b(op, "x", domain=domain, **attributes)
    return b.model(b("Relu", x))


def with_subgraph():
    """A choice between two graphs."""
    b = Builder()
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x"], ["z"])], op, [], [helper.make_tensor_value_info("z", 1, None)]
        )
        for op in ("Relu", "Neg")
    ]
    x = b("If", b.weight(np.array(True)), then_branch=branches[0], else_branch=branches[1])
    return b.model(x)


def flat_output():
    """One class without its axis."""
    b = Builder()
    return b.model(b("Squeeze", b.same("x"), b.integers(1)))


def labels():
    """Ends in the number of the best class, and keeps its axis."""
    b = Builder()
    return b.model(b("ArgMax", b.same("x", (1, 3)), axis=1), TensorProto.INT64)


def baked(dims=(1, 4, 32, 64)):
    """Reshaped to sizes that are those of one tile."""
    b = Builder(dims=["n", 1, 32, 64])
    return b.model(b("Reshape", b.same("x", (1, 4)), b.integers(*dims)))


def varying_constant():
    """Adds a map of where in the tile a pixel lies."""
    b = Builder(dims=["n", 1, 32, 64])
    return b.model(b("Add", "x", b.random(1, 1, 1, 64)))


def positions():
    """The same, made from the shape."""
    b = Builder()
    count = b("Gather", b("Shape", "x"), b.weight(np.int64(3)))
    places = b("Range", b.weight(np.int64(0)), count, b.weight(np.int64(1)))
    return b.model(b("Add", "x", b("Cast", places, to=TensorProto.FLOAT)))


def joined_columns():
    """The tile and its copy side by side."""
    b = Builder()
    return b.model(b("Concat", "x", b.same("x"), axis=3))


def training():
    """Batch statistics of what it sees."""
    b = Builder()
    y, _, _ = b("BatchNormalization", "x", *(b.random(1) for _ in range(4)), outputs=3, training_mode=1)
    return b.model(y)


def of_random_parts(seed):
    """A network of operators drawn at random, with a skip around a part of them."""
    b = Builder(seed=seed)
    rng = np.random.default_rng(seed)
    x = "x"
    for _ in range(rng.integers(2, 5)):
        x = RANDOM[rng.integers(len(RANDOM))](b, rng, x)
    if rng.integers(2):
        x = b("Add", _padded(b, rng, x), _padded(b, rng, x))
    deep = b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b("Add", x, b.up(_padded(b, rng, deep), strides=[2, 2])) if rng.integers(2) else x)


def _padded(b, rng, x):
    """A convolution that keeps the size, with its window somewhere about the pixel."""
    kernel, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    room = (kernel - 1) * dilation
    before = int(rng.integers(0, room + 1))
    pads = [before, before, room - before, room - before]
    return b.conv(x, kernel=kernel, pads=pads, dilations=[dilation] * 2)


def _shrunk(b, rng, x):
    step = int(rng.integers(2, 4))
    kernel = int(rng.integers(step, step + 3))
    before = int(rng.integers(0, min(kernel - step, kernel // 2) + 1))
    pads = [before, before, kernel - step - before, kernel - step - before]
    if rng.integers(2) or max(pads) > kernel // 2:
        return b.conv(x, kernel=kernel, strides=[step] * 2, pads=pads)
    return b("MaxPool", x, kernel_shape=[kernel] * 2, strides=[step] * 2, pads=pads)


def _grown(b, rng, x):
    step = int(rng.integers(2, 4))
    if rng.integers(2):
        kernel = step + 2 * int(rng.integers(0, 2))
        return b.up(x, kernel, strides=[step] * 2, pads=[(kernel - step) // 2] * 4)
    scales = b.weight(np.array([1, 1, step, step], np.float32))
    mode = ["nearest", "linear", "cubic"][rng.integers(3)]
    return b("Resize", x, "", scales, mode=mode, coordinate_transformation_mode="half_pixel")


def _cut(b, rng, x):
    first, last = int(rng.integers(0, 4)), int(rng.integers(1, 4))
    return b("Slice", x, b.integers(first, first), b.integers(-last, -last), b.integers(2, 3))


RANDOM = (_padded, _padded, _shrunk, _grown, _cut)
