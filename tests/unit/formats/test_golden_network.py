"""The golden evaluation of a whole network: every op, chunks, errors."""

from __future__ import annotations

import numpy as np
import pytest

from soniq_dse.formats import network as golden
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    AddNode,
    Conv2dNode,
    FlattenNode,
    InputNode,
    IntegerNetwork,
    LinearNode,
    PoolNode,
    QuantizeNode,
    ReluNode,
    TensorQuantizer,
)
from soniq_dse.records.palette import Palette


def quantizer(channels: int, signed: bool, palette: str = "w2a2+w8a8") -> TensorQuantizer:
    return TensorQuantizer(
        palette=Palette.parse(palette),
        level_of_channel=tuple(i % 2 for i in range(channels)),
        steps=(0.5, 0.03125),
        signed=signed,
    )


@pytest.fixture
def network() -> tuple[IntegerNetwork, dict[str, np.ndarray]]:
    """input -> q -> conv -> relu -> (+ input) -> pools -> q -> flatten-free linear, on 4 channels of 4x4."""
    rng = np.random.default_rng(1)
    arrays: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray) -> ArrayRef:
        ref = ArrayRef(sha256=f"{len(arrays):064x}", shape=array.shape, dtype=str(array.dtype))
        arrays[ref.sha256] = array
        return ref

    def odd(shape: tuple[int, ...]) -> np.ndarray:
        return (2 * rng.integers(-1, 1, shape) + 1).astype(np.int8)

    def matmul(shape: tuple[int, ...]) -> dict[str, ArrayRef]:
        scale = rng.uniform(0.1, 1, (2, shape[0])).astype(np.float32)
        return {"weight": keep(odd(shape)), "scale": keep(scale), "bias": keep(rng.normal(size=shape[0]).astype("f4"))}

    nodes = (
        InputNode(name="x", shape=(4, 4, 4)),
        QuantizeNode(name="q1", inputs=("x",), shape=(4, 4, 4), quantizer=quantizer(4, True)),
        Conv2dNode(name="conv", inputs=("q1",), shape=(4, 4, 4), padding=(1, 1), **matmul((4, 4, 3, 3))),
        ReluNode(name="relu", inputs=("conv",), shape=(4, 4, 4)),
        AddNode(name="add", inputs=("relu", "x"), shape=(4, 4, 4)),
        PoolNode(name="avg", op="avg_pool2d", inputs=("add",), shape=(4, 3, 3), kernel=(2, 2), stride=(1, 1)),
        PoolNode(name="max", op="max_pool2d", inputs=("avg",), shape=(4, 1, 1), kernel=(3, 3), stride=(3, 3)),
        FlattenNode(name="flat", inputs=("max",), shape=(4,)),
        QuantizeNode(name="q2", inputs=("flat",), shape=(4,), quantizer=quantizer(4, True)),
        LinearNode(name="out", inputs=("q2",), shape=(3,), **matmul((3, 4))),
    )
    return IntegerNetwork(name="tiny", nodes=nodes), arrays


def test_kept_tensors_obey_each_op(network: tuple[IntegerNetwork, dict[str, np.ndarray]]) -> None:
    net, arrays = network
    x = np.random.default_rng(2).normal(size=(5, 4, 4, 4)).astype(np.float32)
    kept = golden.evaluate(net, arrays, x, keep=True)
    assert list(kept) == [node.name for node in net.nodes]
    for node in net.nodes:
        assert kept[node.name].shape == (5, *node.shape)
        assert kept[node.name].dtype == (np.uint8 if node.op == "quantize" else np.float32)
    np.testing.assert_array_equal(kept["relu"], np.where(kept["conv"] > 0, kept["conv"], 0))
    np.testing.assert_array_equal(kept["add"], kept["relu"] + kept["x"])
    a = kept["add"]
    corner = ((a[:, :, 0, 0] + a[:, :, 0, 1]) + a[:, :, 1, 0]) + a[:, :, 1, 1]
    np.testing.assert_array_equal(kept["avg"][:, :, 0, 0], corner * np.float32(0.25))
    np.testing.assert_array_equal(kept["max"][:, :, 0, 0], kept["avg"].max(axis=(2, 3)))
    np.testing.assert_array_equal(golden.evaluate(net, arrays, x), kept["out"])


def test_chunks_do_not_show(
    network: tuple[IntegerNetwork, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, arrays = network
    x = np.random.default_rng(3).normal(size=(7, 4, 4, 4)).astype(np.float32)
    whole = golden.evaluate(net, arrays, x)
    monkeypatch.setattr(golden, "CHUNK_BYTES", 1)
    np.testing.assert_array_equal(golden.evaluate(net, arrays, x), whole)


def test_max_pool_of_codes_is_the_code_of_the_max_pool() -> None:
    """Rounding is monotone, so pooling commutes with it; a matmul sees its quantizer through the pool."""
    pool = {"kernel": (2, 2), "stride": (2, 2), "op": "max_pool2d"}
    q = quantizer(2, False)
    first = (
        InputNode(name="x", shape=(2, 4, 4)),
        QuantizeNode(name="q", inputs=("x",), shape=(2, 4, 4), quantizer=q),
        PoolNode(name="pool", inputs=("q",), shape=(2, 2, 2), **pool),
    )
    second = (
        InputNode(name="x", shape=(2, 4, 4)),
        PoolNode(name="pool", inputs=("x",), shape=(2, 2, 2), **pool),
        QuantizeNode(name="q", inputs=("pool",), shape=(2, 2, 2), quantizer=q),
    )
    x = np.random.default_rng(4).normal(size=(6, 2, 4, 4)).astype(np.float32)
    codes = [golden.evaluate(IntegerNetwork(name="pools", nodes=nodes), {}, x) for nodes in (first, second)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert golden.quantizer_of(IntegerNetwork(name="pools", nodes=first), "pool") == q


def test_wrong_input_is_refused(network: tuple[IntegerNetwork, dict[str, np.ndarray]]) -> None:
    net, arrays = network
    with pytest.raises(ValueError, match=r"expected \[n, 4, 4, 4\], got \[1, 4, 4, 5\]"):
        golden.evaluate(net, arrays, np.zeros((1, 4, 4, 5)))
    with pytest.raises(ValueError, match="finite"):
        golden.evaluate(net, arrays, np.full((1, 4, 4, 4), np.inf))
    with pytest.raises(ValueError, match="expected codes of a quantize node"):
        golden.quantizer_of(net, "relu")
