"""The step of a linear layer that reads fp32 (``weight_only.h``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.catalog import kernels_for
from soniq_dse.kernels.library import GUARD_BYTES, load_kernel, round_up
from soniq_dse.records.network import WeightOnlyNode
from soniq_dse.records.palette import FLOAT_BITS, Level
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.plan import SCRATCH, LayerReport, Plan
from soniq_dse.runtime.structs import Kind, WeightOnlyStruct

ROWS = 16
"""Rows that ``weight_only.h`` does at once."""
BLOCK_COLUMNS = 256
"""About the columns of a block of sums, which so stays in L1 or L2."""


class WeightOnlyPlanner:
    """Adds the steps of such layers to the plan."""

    def __init__(self, graph: Graph, arrays: Mapping[str, NDArray[Any]], plan: Plan, features: Collection[str]) -> None:
        self._graph, self._arrays, self._plan, self._features = graph, arrays, plan, features

    def emit(self, node: WeightOnlyNode) -> None:
        """Add the step of ``node``.

        Raises:
            UserError: no kernel of this machine has its weights.
        """
        cols, k = node.weight.shape
        rows = self._plan.batch * prod(self._graph.shape(node.name)[1:])
        level = Level(weight_bits=node.bits, activation_bits=FLOAT_BITS)
        ranked = kernels_for(level, signed=True, features=self._features, rows=rows, cols=cols)
        fitting = [spec for spec in ranked if spec.features]  # the scalar ones round products and sums apart
        if not fitting:
            raise UserError(f"node {node.name}: expected a processor with a kernel for {level.name}, got none for it")
        kernel = load_kernel(fitting[0])
        weights = kernel.pack_w(np.ascontiguousarray(self._arrays[node.weight.sha256])[:, None, :])
        reads, writes = self._plan.floats[node.inputs[0]], self._plan.new_floats(node.name, rows * cols)
        block = round_up(min(cols, BLOCK_COLUMNS), kernel.spec.tile[1])
        ld_packed = kernel.a_row_stride(k)
        scratch = round_up(ROWS * (ld_packed + 4 * block) + GUARD_BYTES, GUARD_BYTES)
        self._plan.buffer(SCRATCH, scratch * self._plan.threads)
        scale, bias = (self._arrays[ref.sha256] for ref in (node.scale, node.bias))
        self._plan.add(
            Kind.WEIGHT_ONLY,
            node.name,
            reads=(reads,),
            writes=(writes,),
            arguments=lambda address: WeightOnlyStruct(
                kernel=kernel.address,
                in_=address[reads],
                rows=rows,
                cols=cols,
                k=k,
                ld_packed=ld_packed,
                block_columns=block,
                weights=weights,
                scale=scale,
                bias=bias,
                out=address[writes],
                scratch=address[SCRATCH],
                scratch_bytes=scratch,
            ),
        )
        macs, padded = rows * cols * k, rows * round_up(cols, kernel.spec.tile[1]) * round_up(k, kernel.spec.k_group)
        self._plan.layers.append(LayerReport(node.name, (kernel.spec.symbol,), macs, padded, folded=False, shapes=()))
