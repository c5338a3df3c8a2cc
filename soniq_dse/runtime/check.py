"""Is the network that runs the network that was evaluated? Code for code at every quantised tensor, and all outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.formats.network import evaluate
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork, run_chunks


@dataclass(frozen=True)
class Parity:
    """``unequal_codes``: codes that differ, by quantised tensor; ``unequal_outputs``: output numbers that differ, so
    that with none of them every metric is equal too."""

    samples: int
    unequal_codes: dict[str, int]
    unequal_outputs: int

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return not self.unequal_outputs and not any(self.unequal_codes.values())


def check(packed: PackedNetwork, x: NDArray[Any], *, batch: int | None = None, threads: int = 1) -> Parity:
    """Run ``x [n, ...]`` through the runtime, by ``threads`` threads, and the golden arithmetic; count what differs.

    ``batch``: samples a call (default up to 32), which decide the kernels.

    Raises:
        UserError: as ``PackedNetwork.run``.
    """
    graph = Graph(packed.network)
    names = [node.name for node in packed.network.nodes if graph.holds_codes(node.name)]
    executor = packed.executor(batch or min(max(len(x), 1), RUN_BATCH), threads=threads, keep=names)
    unequal, unequal_outputs = dict.fromkeys(names, 0), 0
    for outputs, at in run_chunks(executor, packed.as_input(x)):
        golden = evaluate(packed.network, packed.arrays, x[at], keep=True)
        for name in names:
            unequal[name] += _differing_codes(executor.kept_codes(name, graph.shape(name)), golden[name], graph, name)
        expected = golden[packed.network.nodes[-1].name]
        unequal_outputs += int((outputs != expected).sum())
    return Parity(len(x), unequal, unequal_outputs)


def _differing_codes(got: NDArray[np.uint8], golden: NDArray[np.uint8], graph: Graph, name: str) -> int:
    channels = graph.shape(name)[0]
    by_pixel = golden if graph.is_tokens(name) else golden.reshape(len(golden), channels, -1).transpose(0, 2, 1)
    expected = by_pixel[..., graph.order(name)]
    return int((got[: len(golden)] != expected).sum())
