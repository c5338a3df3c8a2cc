"""The instruction-set features of the processor that we run on."""

from __future__ import annotations

import functools
import os
from pathlib import Path

_KEYS = ("flags", "Features")  # x86-64; Arm and RISC-V kernels say Features or isa


@functools.lru_cache(maxsize=1)
def host_features() -> frozenset[str]:
    """Features as the Linux kernel names them, less the underscores: ``avx512vnni``, ``asimddp``.

    ``SONIQ_DSE_FEATURES_OFF=avx512vnni,amxint8`` hides some, to try what a lesser machine would run. Empty where the
    system does not say: then scalar kernels run.
    """
    hidden = {plain_feature(name) for name in os.environ.get("SONIQ_DSE_FEATURES_OFF", "").split(",")}
    return frozenset(plain_feature(name) for name in _listed()) - hidden


def plain_feature(name: str) -> str:
    """The one spelling of a feature: ``avx512_vnni`` and ``avx512vnni`` are the same."""
    return name.strip().replace("_", "")


def _listed() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in _KEYS:
            return value.split()
    return []
