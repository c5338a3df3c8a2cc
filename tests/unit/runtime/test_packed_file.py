"""The packed file: true bits, the way back, and clear words for what is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import UserError
from soniq_dse.runtime.pack import PackedNetwork


@pytest.fixture
def factory() -> NetworkFactory:
    net = NetworkFactory((6, 5, 5), "w1a1+w4a4")
    inner = net.relu(net.conv(net.quantize("x", signed=True, levels=[0, 1, 1, 0, 0, 0]), 8, 3, groups=2))
    net.linear(net.quantize(net.flatten(inner), signed=False, palette="w8a8"), 3)
    return net


def test_weights_are_stored_at_their_true_bits(factory: NetworkFactory) -> None:
    packed = PackedNetwork(factory.network(), factory.arrays)
    name = factory.nodes[2].name
    # Group 0 has channels 0 (1 bit), 1 and 2 (4 bits); group 1 has three of 1 bit; 9 kernel positions, 4 outputs each.
    sizes = {key: tensor.shape for key, tensor in packed.tensors.items() if key.startswith(f"{name}/weight")}
    assert sizes == {
        f"{name}/weight/0/0": (4, 2),  # 9 bits
        f"{name}/weight/0/1": (4, 9),  # 2 * 9 * 4 bits
        f"{name}/weight/1/0": (4, 4),  # 27 bits
    }
    linear = packed.tensors[f"{factory.nodes[-1].name}/weight/0/0"]
    assert linear.nbytes == 3 * 72
    fp32 = 4 * (2 * 8 + 8) + 4 * (3 + 3)  # scale of two levels and bias; scale of one and bias
    assert packed.size_bytes == 4 * (2 + 9 + 4) + 3 * 72 + fp32


def test_round_trip(factory: NetworkFactory, tmp_path: Path) -> None:
    packed = PackedNetwork(factory.network(), factory.arrays)
    packed.save(tmp_path / "net.safetensors")
    again = PackedNetwork.load(tmp_path / "net.safetensors")
    assert again.network == packed.network
    assert set(again.arrays) == set(packed.arrays)
    for sha256, array in packed.arrays.items():
        np.testing.assert_array_equal(again.arrays[sha256], array)
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 5)).astype(np.float32)
    assert np.array_equal(packed.run(x), again.run(x))


def test_damaged_weights_are_found(factory: NetworkFactory, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    PackedNetwork(factory.network(), factory.arrays).save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        PackedNetwork.load(path)


@pytest.mark.parametrize("content", [None, b"", b"rubbish" * 100, b"\xff" * 4096])
def test_what_is_no_packed_network(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "net.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="expected a packed network"):
        PackedNetwork.load(path)


def test_another_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="expected the format"):
        PackedNetwork.load(tmp_path / "other.safetensors")
    metadata = {"format": "soniq-dse-packed-network-1", "network": "{}"}
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors", metadata)
    with pytest.raises(UserError, match="manifest"):
        PackedNetwork.load(tmp_path / "other.safetensors")


def test_place_that_cannot_be_written(factory: NetworkFactory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a place to write"):
        PackedNetwork(factory.network(), factory.arrays).save(tmp_path / "absent" / "net.safetensors")


def test_manifest_with_another_number_of_outputs(factory: NetworkFactory, tmp_path: Path) -> None:
    """An edited shape is refused where it is read, not where the outputs are compared."""
    path = tmp_path / "net.safetensors"
    PackedNetwork(factory.network(), factory.arrays).save(path)
    content = path.read_bytes()
    edited = content.replace(rb"],\"shape\":[3],\"weight\"", rb"],\"shape\":[4],\"weight\"")
    assert edited != content
    path.write_bytes(edited)
    with pytest.raises(UserError, match=r"expected \(3,\) outputs, got \(4,\)"):
        PackedNetwork.load(path)
