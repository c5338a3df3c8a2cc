"""The packed file: true bits, the way back, and clear words for what is not one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory
from safetensors.numpy import save_file

from soniq_dse.errors import UserError
from soniq_dse.runtime.pack import VERSION, PackedNetwork


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


def write(path: Path, tensors: dict[str, np.ndarray], manifest: str, version: str = f"{VERSION}") -> None:
    """A packed file whose hash of the manifest is right, whatever that says."""
    sha256 = hashlib.sha256(manifest.encode()).hexdigest()
    save_file(tensors, path, {"format": f"soniq-dse-packed-network-{version}", "network": manifest, "sha256": sha256})


def test_another_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(UserError, match="expected the format"):
        PackedNetwork.load(path)
    write(path, {"a": np.zeros(3)}, "{}")
    with pytest.raises(UserError, match="manifest"):
        PackedNetwork.load(path)


@pytest.mark.parametrize(
    ("version", "message"),
    [("1", "explore writes it again"), ("10", "a newer soniq-dse wrote it"), ("two", r"got '[a-z-]*two'$")],
)
def test_other_versions(factory: NetworkFactory, tmp_path: Path, version: str, message: str) -> None:
    packed = PackedNetwork(factory.network(), factory.arrays)
    write(tmp_path / "net.soniq", packed.tensors, packed.network.model_dump_json(), version)
    with pytest.raises(UserError, match=message):
        PackedNetwork.load(tmp_path / "net.soniq")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, name: t.pop(name), "got none: 'conv2/weight/0/0'"),
        (lambda t, name: t.update({"conv2/fp32": np.zeros(9, np.float32)}), "got one more: 'conv2/fp32'"),
        (lambda t, name: t.update({name: t[name][:, :1]}), r"expected uint8 \[4, 2\], got uint8 \[4, 1\]"),
        (lambda t, name: t.update({name: t[name].astype(np.int8)}), r"expected uint8 \[4, 2\], got int8 \[4, 2\]"),
    ],
)
def test_other_tensors_than_the_manifest_says(
    factory: NetworkFactory, tmp_path: Path, change: Callable[[dict[str, np.ndarray], str], None], message: str
) -> None:
    packed = PackedNetwork(factory.network(), factory.arrays)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in packed.tensors.items()}
    change(tensors, "conv2/weight/0/0")
    write(
        tmp_path / "net.soniq",
        {k: np.ascontiguousarray(t) for k, t in tensors.items()},
        factory.network().model_dump_json(),
    )
    with pytest.raises(UserError, match=message):
        PackedNetwork.load(tmp_path / "net.soniq")


def test_a_step_that_was_changed_is_found(factory: NetworkFactory, tmp_path: Path) -> None:
    path = tmp_path / "net.soniq"
    PackedNetwork(factory.network(), factory.arrays).save(path)
    content = path.read_bytes()
    at = content.index(b"steps") + 12
    digit = next(i for i in range(at, at + 20) if content[i : i + 1].isdigit())
    path.write_bytes(content[:digit] + (b"7" if content[digit : digit + 1] != b"7" else b"6") + content[digit + 1 :])
    with pytest.raises(UserError, match="expected the manifest whose hash is beside it"):
        PackedNetwork.load(path)


def test_a_file_runs_on_other_features_with_the_same_outputs(factory: NetworkFactory, tmp_path: Path) -> None:
    PackedNetwork(factory.network(), factory.arrays).save(tmp_path / "net.soniq")
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 5)).astype(np.float32)
    here = PackedNetwork.load(tmp_path / "net.soniq")
    plain = PackedNetwork.load(tmp_path / "net.soniq", features=())
    assert np.array_equal(here.run(x), plain.run(x))


def test_place_that_cannot_be_written(factory: NetworkFactory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a place to write"):
        PackedNetwork(factory.network(), factory.arrays).save(tmp_path / "absent" / "net.safetensors")


def test_manifest_with_another_number_of_outputs(factory: NetworkFactory, tmp_path: Path) -> None:
    """An edited shape is refused where it is read, not where the outputs are compared."""
    path = tmp_path / "net.safetensors"
    manifest = factory.network().model_dump_json()
    edited = manifest.replace('],"shape":[3],"weight"', '],"shape":[4],"weight"')
    assert edited != manifest
    write(path, PackedNetwork(factory.network(), factory.arrays).tensors, edited)
    with pytest.raises(UserError, match=r"expected \(3,\) outputs, got \(4,\)"):
        PackedNetwork.load(path)
