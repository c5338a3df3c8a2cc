"""Hardware simulation and design-space exploration of ultra-low-precision neural networks."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """``soniq_dse.quantize``, which imports torch when it is asked for, not before."""
    if name == "quantize":
        from soniq_dse.qat.session import quantize

        return quantize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
