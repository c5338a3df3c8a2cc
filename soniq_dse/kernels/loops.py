"""The kept hot loops of the kernels: what estimates and the choice of kernels read instead of compiling."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.records.cost import HotLoop
from soniq_dse.resources import shipped_folder

ISA = "x86_64"


def kept_loops_folder() -> Path:
    """Where the kept loops of x86-64 kernels are, one JSON file per symbol."""
    return shipped_folder("hwmodels") / "loops" / ISA


def kept_loop(symbol: str, folder: Path | None = None) -> HotLoop | None:
    """The kept loop of a kernel; None where none is kept. It may be stale: see ``keep_loops.is_stale``.

    Raises:
        UserError: the file is not a HotLoop.
    """
    path = (folder or kept_loops_folder()) / f"{symbol}.json"
    try:
        loop = HotLoop.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {field}: expected a HotLoop record, got {first['msg']}; keep it again") from error
    if loop.symbol != symbol:
        raise UserError(f"{path}: symbol: expected {symbol}, got {loop.symbol}")
    return loop


@functools.lru_cache(maxsize=512)
def instructions_per_mac(symbol: str) -> Fraction | None:
    """Instructions of the kept loop of a kernel per multiply-accumulate; None where none is kept."""
    loop = kept_loop(symbol)
    return None if loop is None else Fraction(len(loop.instructions), loop.macs_per_iteration)
