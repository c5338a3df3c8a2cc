"""Models, data and the graph between them; torch is imported when a model or a batch is asked for, not before."""

from __future__ import annotations

from typing import Any

from soniq_dse.workloads.loading import Defaults, load_model, load_task, load_workload, model_at_width, width_of

__all__ = ["Defaults", "load_model", "load_task", "load_workload", "model_at_width", "split_attention", "width_of"]


def __getattr__(name: str) -> Any:
    """``split_attention``, which imports torch."""
    if name == "split_attention":
        from soniq_dse.workloads.attention_modules import split_attention

        return split_attention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
