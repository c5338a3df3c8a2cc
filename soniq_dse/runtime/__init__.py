"""Runs a trained integer network on this CPU, whole, on the real kernels, and says how long that takes.

``pack.PackedNetwork`` is the deployed form (weights at their true bits, one file); ``planner.plan_network`` lays it out
for one batch size and a set of CPU features; ``executor.Executor`` runs the plan in one C++ call; ``check.check`` holds
every quantised tensor against the golden arithmetic.

A run may use several threads, whose number has no influence on any bit of the results. An ``Executor``, and so a
``PackedNetwork``, serves one caller at a time; ``load`` gives a function that serves all of a program's threads side by
side, and holds no interpreter lock meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from soniq_dse.records.choice import Choices
    from soniq_dse.runtime.loaded import LoadedNetwork


def load(path: str | Path, *, threads: int = 1, choices: Choices | None = None) -> LoadedNetwork:
    """``loaded.load``, imported when it is called: who plans or measures needs no packed file."""
    from soniq_dse.runtime.loaded import load as load_now

    return load_now(path, threads=threads, choices=choices)
