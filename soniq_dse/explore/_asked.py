"""What single options mean."""

from __future__ import annotations

from collections.abc import Sequence

from soniq_dse import registry
from soniq_dse.hardware.gpus import match_gpu
from soniq_dse.hardware.host import default_descriptor, detect_host, match_host
from soniq_dse.hardware.load import load_machine
from soniq_dse.hardware.whatif import what_if
from soniq_dse.kernels.gpu_device import visible_gpus
from soniq_dse.records.cost import Host
from soniq_dse.records.design import Candidate
from soniq_dse.records.gpu import GpuModel, Machine
from soniq_dse.search import epochs_of

SEARCH_SHARE = 0.1
"""Of the epochs of all designs: the budget of a search that was given none."""


def known(kind: str, name: str) -> str:
    """``name``, if there is such a unit.

    Raises:
        UserError: there is none.
    """
    registry.load(kind, name)
    return name


def search_budget(search: str, epochs: int | None, designs: Sequence[Candidate]) -> int | None:
    """Epochs that a search may spend: those asked for, else a tenth of all, one design's at least; None: any number."""
    if epochs is not None or search == "exhaustive":
        return epochs
    all_epochs = [epochs_of(candidate) for candidate in designs]
    return max(round(SEARCH_SHARE * sum(all_epochs)), *all_epochs[:1], 1)


def machine_of(spec: str | None, settings: Sequence[str]) -> tuple[Machine, Host, str | None]:
    """The machine, this host, and why the one does not describe the other (None: it does).

    Raises:
        UserError: there is no such machine, or a setting does not fit it.
    """
    host = detect_host()
    hardware = what_if(load_machine(default_descriptor(host)[0] if spec is None else spec), settings)
    if isinstance(hardware, GpuModel):
        here, reason = match_gpu(hardware.name, hardware.matches, visible_gpus())
        return hardware, host, None if here else f"model only, not measured: {reason}"
    matches, reason = match_host(hardware, host)
    return hardware, host, None if matches else reason
