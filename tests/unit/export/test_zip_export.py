"""C++ bundles: the runtime's own sources and nothing else, for this processor, any, or an Arm one under emulation."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.export import Design
from soniq_dse.export.zip import Zip, compiled, run_program
from soniq_dse.formats.network import evaluate
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.catalog import CPU_FOLDER
from soniq_dse.native.compiler import host_compiler

PALETTES = ("w8a8", "w1a1+w2a2+w4a4", "w3a3+w1a2+w2a8")
"""In the blocks of one network: each kernel, and the drivers, are compiled once."""


def network(*palettes: str) -> NetworkFactory:
    """A residual block with a depthwise layer for each palette."""
    net = NetworkFactory((3, 8, 8), palettes[-1])
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 32, 3, padding=(1, 1)))
    for palette in palettes:
        codes = net.quantize(trunk, signed=False, palette=palette)
        inner = net.relu(net.conv(codes, 32, 3, padding=(1, 1), groups=32))
        trunk = net.relu(net.add(net.conv(net.quantize(inner, signed=True, palette=palette), 32, 1), trunk))
    flat = net.flatten(net.pool(net.clip(net.pool(trunk, "max_pool2d", 2), 2.0), "avg_pool2d", 4))
    net.linear(net.quantize(net.gelu(flat), signed=True), 10)
    return net


def held(net: NetworkFactory, path: Path, command: list[str], run: list[str]) -> None:
    program = compiled(path, path.parent, command)
    x = np.random.default_rng(3).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run_program([*run, str(program)], x, path), evaluate(net.network(), net.arrays, x))


def written(net: NetworkFactory, folder: Path, features: tuple[str, ...] = ()) -> Path:
    path = folder / "net.zip"
    Zip().write(Design(net.network(), net.arrays, features), path)
    return path


def test_it_holds_the_sources_of_the_runtime_unchanged_and_is_the_same_each_time(tmp_path: Path) -> None:
    path = written(network("w2a2"), tmp_path)
    with zipfile.ZipFile(path) as file:
        assert file.read("net/soniq/layer.cpp") == (CPU_FOLDER / "layer.cpp").read_bytes()
        assert {"net/README.md", "net/main.cpp", "net/soniq/team.h"} <= set(file.namelist())
    first = path.read_bytes()
    assert written(network("w2a2"), tmp_path).read_bytes() == first


def test_weight_only_layers_need_the_instructions_of_their_kernels(tmp_path: Path) -> None:
    net = NetworkFactory((5, 24), "w4a4")
    net.weight_only("x", 3, 4)
    with pytest.raises(UserError, match="expected a processor with a kernel for w4"):
        written(net, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_of_this_processor(tmp_path: Path) -> None:
    net = network(*PALETTES)
    held(net, written(net, tmp_path, detect_host().features), [host_compiler().path, "-O3"], [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_flag_of_the_compiler_changes_a_bit(tmp_path: Path) -> None:
    net = network("w1a1+w4a4")
    held(
        net,
        written(net, tmp_path),
        [host_compiler().path, "-O2", "-march=native", "-ffp-contract=fast", "-Wall", "-Werror"],
        [],
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_transformers_take_token_numbers(tmp_path: Path) -> None:
    net = NetworkFactory((12,), "w1a1+w4a4", n_tokens=7)
    x = net.add_constant(net.embedding("x", 24))
    codes = net.quantize(net.layer_norm(x), signed=True)
    mixed = net.attention(*(net.linear(codes, 24) for _ in range(3)), 2, causal=True)
    x = net.token(net.prepend(net.gelu(net.add(x, mixed), "tanh")), 3)
    net.linear(net.quantize(x, signed=True), 7)
    path = written(net, tmp_path, detect_host().features)
    program = compiled(path, tmp_path, [host_compiler().path, "-O1"])
    tokens = net.inputs(5)
    np.testing.assert_array_equal(
        run_program([str(program)], tokens, path), evaluate(net.network(), net.arrays, tokens)
    )
    with pytest.raises(UserError, match="soniq_run: expected 0, got 2"):
        run_program([str(program)], np.full((1, 12), 7), path)


def test_the_function_says_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    path = written(network("w2a2"), tmp_path)
    program = compiled(path, tmp_path, [host_compiler().path, "-O1"])
    with pytest.raises(UserError, match=r"soniq_run: expected 0, got 2; soniq_net\.h says"):
        run_program([str(program)], np.full((1, 3, 8, 8), np.nan, np.float32), path)
    with pytest.raises(UserError, match=r"samples of 192 numbers, got 3 of the last one"):
        run_program([str(program)], np.zeros(3, np.float32), path)


def test_features_that_this_machine_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingCapabilityError, match="got no_such_feature; export on such a machine"):
        written(network("w2a2"), tmp_path, ("no_such_feature",))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("features", [(), ("neon",), ("neon", "dotprod"), ("neon", "dotprod", "i8mm")], ids="-".join)
def test_arm_under_emulation(
    features: tuple[str, ...],
    tmp_path: Path,
    need_program: Callable[[str, str], str],
    need_header: Callable[[str, str], None],
) -> None:
    need_header("simde/arm/neon.h", "libsimde-dev")
    compiler = need_program("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    emulator = need_program("qemu-aarch64", "qemu-user")
    net = network(*PALETTES)
    held(net, written(net, tmp_path, features), [compiler, "-O3", "-static"], [emulator, "-cpu", "max"])
