"""Whole networks to be timed: the models of the registry, untrained, at the palettes of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from soniq_dse import registry
from soniq_dse.cost.bounds import even_assignment
from soniq_dse.hardware.levels import native_levels
from soniq_dse.records.design import Assignment
from soniq_dse.records.hardware import HardwareModel
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


def network_cases(hw: HardwareModel) -> Iterator[NetworkCase]:
    """Every model of the registry that can be deployed, at each of ``PALETTES`` that ``hw`` computes."""
    from soniq_dse.workloads import load_workload

    native = {found.level for found in native_levels(hw)}
    for model in registry.names("model"):
        if not registry.load("model", model).deployable:
            continue
        workload = load_workload(model)
        for palette in map(Palette.parse, PALETTES):
            if native.issuperset(palette.levels):
                yield NetworkCase(model, palette, workload, even_assignment(workload, palette))


def packed_network(case: NetworkCase) -> PackedNetwork:
    """The network of ``case`` with untrained weights, ready to run."""
    from soniq_dse.qat.untrained import untrained_network
    from soniq_dse.workloads import load_model

    network, arrays = untrained_network(load_model(case.model)[0], case.workload, case.assignment)
    return PackedNetwork(network, arrays)
