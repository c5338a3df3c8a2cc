"""What simulations gave, remembered between runs beside the compiled libraries, named by all that they follow from."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from soniq_dse.native.compiler import cache_folder
from soniq_dse.records.gpu import Machine
from soniq_dse.records.hardware import HardwareModel

_SOURCES = ("calls.py", "core.py", "pipeline.py", "branches.py", "instructions.py", "registers.py")
"""The model: what it says is forgotten with every change of it."""
_MACHINES: dict[int, tuple[Machine, str]] = {}


def place_of(kind: str, hw: HardwareModel, code_sha256: str) -> Path:
    """Where a result for some code on a machine stays."""
    key = hashlib.sha256("\0".join((machine_sha256(hw), code_sha256, _model())).encode()).hexdigest()
    return cache_folder() / f"{kind}-{key[:32]}.json"


def recall(path: Path) -> Any:
    """What was written to ``path``; None where nothing legible is."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def remember(path: Path, value: Any) -> None:
    """Write ``value`` to ``path``; where the folder cannot be written, nothing is remembered."""
    with contextlib.suppress(OSError):
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(path)


def machine_sha256(hw: Machine) -> str:
    """``hw.identity()``, hashed once: a descriptor has thousands of figures."""
    if id(hw) not in _MACHINES:
        _MACHINES[id(hw)] = (hw, hw.identity())
    return _MACHINES[id(hw)][1]


@functools.lru_cache(maxsize=1)
def _model() -> str:
    return "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _SOURCES)
