"""Convolutions of joined tensors, split: the same scores, fewer bytes, and hands off what cannot be split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

import networks
from tiler.backends.concat import split_concats
from tiler.backends.graph import bytes_per_pixel, read_graph
from tiler.demo import MODEL
from zoo import Builder, close, pixels, runner


def operators(proto):
    return sorted(node.op_type for node in proto.graph.node if node.op_type in {"Add", "Concat", "Conv"})


def joined(parts=2, axis=1, bias=False, weight=None, **attributes):
    """Convolutions of the image, joined and convolved: a graph, and the name of the joined tensor."""
    net = Builder(bands=2)
    branches = [net.same("x", (2, 3 + i)) for i in range(parts)]
    cat = net("Concat", *branches, axis=axis)
    channels = sum(3 + i for i in range(parts))
    inputs = [net.random(4, channels // attributes.get("group", 1), 3, 3) if weight is None else weight(net)]
    if bias:
        inputs.append(net.random(4))
    return net, cat, net("Conv", cat, *inputs, **{"pads": [1] * 4, **attributes})


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        (2, {}),
        (2, {"bias": True}),
        (3, {"bias": True}),
        (5, {}),
        (2, {"strides": [2, 2]}),
        (2, {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
        (3, {"pads": None, "auto_pad": "SAME_UPPER"}),
    ],
)
def test_the_same_scores(parts, more):
    """Whatever the parts and the kind of convolution."""
    net, _, result = joined(parts, **more)
    whole = net.model(result)
    split = split_concats(whole)
    assert operators(split) == ["Add"] * (parts - 1) + ["Conv"] * (2 * parts)
    image = pixels(2, 37, 29)
    assert close(runner(split, 2)(image), runner(whole, 2)(image), 1e-6)


def shared():
    """The joined tensor goes elsewhere, too."""
    net, cat, result = joined()
    return net.model(net("Concat", result, cat, axis=1))


def returned():
    """The joined tensor is what the network returns."""
    net, cat, _ = joined()
    return net.model(cat)


def computed():
    """The weights follow from something."""
    net, _, result = joined(weight=lambda net: net("Abs", net.random(4, 7, 3, 3)))
    return net.model(result)


def grouped():
    """Some channels of the result see some of the joined ones."""
    net, _, result = joined(3, group=2)
    return net.model(result)


def alone():
    """Nothing is joined to it."""
    net, _, result = joined(1)
    return net.model(result)


def in_a_branch():
    """A graph within the graph takes the joined tensor, too."""
    net, cat, result = joined()
    shape = helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", [cat], ["taken"])], "branch", [], [shape])
    taken = net("If", net.weight(np.array(True)), then_branch=branch, else_branch=branch)
    return net.model(net("Concat", result, taken, axis=1))


def unknown():
    """A number of channels is not known before it runs."""
    net = Builder(bands=2)
    size = net("Slice", net("Shape", "x"), net.integers(1), net.integers(2))
    some = net("Slice", "x", net.integers(0), size, net.integers(1))
    cat = net("Concat", some, net.same("x", (2, 3)), axis=1)
    return net.model(net.same(cat, (5, 4)))


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(shared, id="shared"),
        pytest.param(alone, id="alone"),
        pytest.param(in_a_branch, id="in a branch"),
        pytest.param(returned, id="returned"),
        pytest.param(computed, id="computed"),
        pytest.param(unknown, id="unknown"),
        pytest.param(grouped, id="grouped"),
    ],
)
def test_what_cannot_be_split_stays(graph):
    whole = graph()
    assert split_concats(whole).graph.node == whole.graph.node


def test_the_shipped_network_says_the_same():
    """Of pixels, and of itself."""
    graph, _ = read_graph(MODEL)
    split = split_concats(graph.proto)
    assert "Concat" not in operators(split)
    assert split.metadata_props == graph.proto.metadata_props
    assert close(runner(split, 3)(pixels(3, 64, 96)), runner(graph.proto, 3)(pixels(3, 64, 96)), 1e-5)


def test_it_takes_less_memory(tmp_path):
    """A quarter: where skip, raised and joined tensor were alive, now one part's scores are added to."""
    graph, _ = read_graph(networks.unet(tmp_path / "net.onnx", width=16))
    assert bytes_per_pixel(replace(graph, proto=split_concats(graph.proto))) < 0.8 * bytes_per_pixel(graph)
