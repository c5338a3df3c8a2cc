"""What every exported file must do, whichever format it is in: compute what the golden arithmetic computes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from network_factory import NetworkFactory

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.export import Base, Design
from soniq_dse.export.lowering import inexact_layers
from soniq_dse.formats.network import evaluate

PALETTES = ("w8a8", "w1a1+w2a2+w4a4", "w3a3+w1a2+w8a8")


def residual(palette: str, *, signed: bool) -> NetworkFactory:
    """A shared shortcut, a strided branch, pools of values and of codes, a flattened image, 8-bit ends."""
    net = NetworkFactory((3, 8, 8), palette)
    trunk = net.relu(net.conv(net.quantize("x", signed=True, palette="w8a8"), 12, 3, padding=(1, 1)))
    inner = net.relu(net.conv(net.quantize(trunk, signed=signed), 12, 3, padding=(1, 1)))
    trunk = net.relu(net.add(net.conv(net.quantize(inner, signed=signed), 12, 3, padding=(1, 1)), trunk))
    trunk = net.pool(trunk, "max_pool2d", 3, 1, padding=1)
    codes = net.pool(net.quantize(trunk, signed=signed), "max_pool2d", 2, padding=1)
    branch = net.conv(codes, 16, 1, stride=(2, 2))
    joined = net.relu(net.add(net.conv(codes, 16, 3, stride=(2, 2), padding=(1, 1)), branch))
    pooled = net.pool(net.pool(joined, "max_pool2d", 1), "avg_pool2d", 2, 1)
    net.linear(net.quantize(net.flatten(pooled), signed=signed), 10)
    return net


def separable(palette: str, *, signed: bool) -> NetworkFactory:
    """Depthwise and grouped convolutions whose groups mix levels unevenly."""
    net = NetworkFactory((12, 7, 6), palette)
    inner = net.relu(net.conv(net.quantize("x", signed=True), 24, 3, padding=(1, 1), groups=12))
    inner = net.conv(net.quantize(inner, signed=signed), 18, 3, padding=(0, 1), groups=3, dilation=(2, 1))
    net.conv(net.quantize(inner, signed=True), 5, 1)
    return net


NETWORKS = {"residual": residual, "separable": separable}


@pytest.fixture(params=registry.names("export"))
def exporter(request: pytest.FixtureRequest) -> Base:
    found: Base = registry.load("export", request.param)()
    return found


def target(exporter: Base, folder: Path) -> Path:
    return folder / f"net.{type(exporter).__module__.rpartition('.')[2]}"


def test_it_says_what_it_is(exporter: Base) -> None:
    assert exporter.title


def cases() -> list[ParameterSet]:
    """Every network, palette and family of codes; those beyond one each are slow, since some formats are compiled."""
    every = list(itertools.product(NETWORKS, PALETTES, (False, True)))
    quick = {("residual", PALETTES[1], True), ("separable", PALETTES[2], False)}
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("name", "palette", "signed"), cases())
def test_outputs_equal_the_golden_arithmetic(
    exporter: Base, name: str, palette: str, signed: bool, tmp_path: Path
) -> None:
    net = NETWORKS[name](palette, signed=signed)
    network, arrays, path = net.network(), net.arrays, target(exporter, tmp_path)
    assert not inexact_layers(network, arrays)  # so that equality is asked for rightly
    exporter.write(Design(network, arrays), path)
    x = np.random.default_rng(5).standard_normal((6, *network.nodes[0].shape)).astype(np.float32)
    np.testing.assert_array_equal(exporter.outputs(path, x), evaluate(network, arrays, x))


def test_a_place_that_cannot_be_written_is_told(exporter: Base, tmp_path: Path) -> None:
    net = residual("w2a2", signed=False)
    with pytest.raises(UserError, match=r"net\.\w+: expected a place to write, got No such file"):
        exporter.write(Design(net.network(), net.arrays), target(exporter, tmp_path / "absent"))
