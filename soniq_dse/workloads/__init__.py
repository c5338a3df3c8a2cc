"""Models, data and the graph between them; torch is imported when a model or a batch is asked for, not before."""

from __future__ import annotations

from soniq_dse.workloads.loading import Defaults, load_model, load_task, load_workload, model_at_width, width_of

__all__ = ["Defaults", "load_model", "load_task", "load_workload", "model_at_width", "width_of"]
