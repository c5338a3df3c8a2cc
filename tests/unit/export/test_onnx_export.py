"""ONNX: the types that weights travel in, narrow ones where they are read, and the bound where fp32 must round."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.export import Design
from soniq_dse.export import onnx as exporter
from soniq_dse.export.onnx import Onnx
from soniq_dse.formats.deployment import channel_grids, integers
from soniq_dse.formats.network import evaluate, quantizer_of

TYPES = {2: ("INT2", "UINT2"), 4: ("INT4", "UINT4"), 8: ("INT8", "UINT8")}


def linear(palette: str, depth: int, outputs: int = 6) -> NetworkFactory:
    net = NetworkFactory((depth,), palette)
    net.linear(net.quantize("x", signed=True), outputs)
    return net


def written(net: NetworkFactory, folder: Path) -> tuple[Path, tuple[str, ...]]:
    path = folder / "net.onnx"
    return path, Onnx().write(Design(net.network(), net.arrays), path)


def types_of(path: Path) -> set[str]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
    return {kind for kind in kinds if "INT" in kind and kind != "INT64"}


@pytest.mark.parametrize(("bits", "width"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_weights_and_codes_take_the_narrowest_type(bits: int, width: int, tmp_path: Path) -> None:
    path, notes = written(linear(f"w{bits}a{bits}", 64), tmp_path)
    assert types_of(path) == set(TYPES[width])
    assert notes == ()


def test_without_two_bit_types_values_are_carried_in_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_accepts_two_bits", lambda: False)
    net = linear("w1a1+w2a2", 64)
    path, notes = written(net, tmp_path)
    assert types_of(path) == set(TYPES[4])
    assert "are carried in 4" in notes[0]
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    np.testing.assert_array_equal(Onnx().outputs(path, x), evaluate(net.network(), net.arrays, x))


def test_deep_sums_are_named_and_stay_within_the_bound_of_their_length(tmp_path: Path) -> None:
    net = linear("w7a7", 3000)
    network, arrays = net.network(), net.arrays
    path, notes = written(net, tmp_path)
    layer = network.nodes[-1]
    assert notes == (f"sums may reach 2**24, where fp32 rounds them, in 1 layers: {layer.name}",)
    x = np.random.default_rng(2).standard_normal((4, 3000)).astype(np.float32) * 9
    values = evaluate(network, arrays, x, keep=True)
    grids = channel_grids(quantizer_of(network, layer.inputs[0]))
    products = np.abs(integers(values[layer.inputs[0]], grids)) @ np.abs(arrays[layer.weight.sha256].astype(np.int64)).T
    # n additions of relative error 2**-24 each, then scale and bias: gamma_(n + 2) of Higham, 2002, section 3.1.
    gamma = (3000 + 2) * 2.0**-24 / (1 - (3000 + 2) * 2.0**-24)
    bound = gamma * (products * np.abs(arrays[layer.scale.sha256][0]) + np.abs(arrays[layer.bias.sha256]))
    assert (np.abs(Onnx().outputs(path, x).astype(np.float64) - values[layer.name]) <= bound).all()


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter._accepts_two_bits.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'soniq-dse\[onnx\]'"):
        written(linear("w2a2", 8), tmp_path)
