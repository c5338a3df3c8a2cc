"""Whole networks to be timed: the models of the registry, untrained, at the palettes of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from soniq_dse import registry
from soniq_dse.cost.bounds import even_assignment
from soniq_dse.hardware.gpus import gpu_levels
from soniq_dse.hardware.levels import native_levels
from soniq_dse.records.design import Assignment
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Workload
from soniq_dse.runtime.pack import PackedNetwork

PALETTES = ("w1a1", "w2a2", "w4a4", "w8a8", "w1a1+w4a4", "w2a2+w4a4", "w1a1+w2a2+w4a4")


@dataclass(frozen=True)
class NetworkCase:
    """A model at a palette, every level on an equal part of each tensor's channels."""

    model: str
    palette: Palette
    workload: Workload
    assignment: Assignment

    @property
    def name(self) -> str:
        """``digits_cnn w1a1+w4a4``."""
        return f"{self.model} {self.palette.name}"


def network_cases(hw: Machine) -> Iterator[NetworkCase]:
    """Every model of the registry, at each of ``PALETTES`` that ``hw`` computes."""
    from soniq_dse.workloads import load_workload

    found = gpu_levels(hw) if isinstance(hw, GpuModel) else native_levels(hw)
    native = {one.level for one in found}
    for model in registry.names("model"):
        workload = load_workload(model)
        for palette in map(Palette.parse, PALETTES):
            if native.issuperset(palette.levels):
                yield NetworkCase(model, palette, workload, even_assignment(workload, palette))


def packed_network(case: NetworkCase) -> PackedNetwork:
    """The network of ``case`` with untrained weights, ready to run."""
    return PackedNetwork(*integer_network(case))


def integer_network(case: NetworkCase) -> tuple[IntegerNetwork, dict[str, NDArray[Any]]]:
    """The network of ``case`` with untrained weights, and its arrays by hash."""
    from soniq_dse.qat.untrained import untrained_network
    from soniq_dse.workloads import load_model

    return untrained_network(load_model(case.model)[0], case.workload, case.assignment)
