"""Where the time of an encoder-decoder goes, by operator, batch and length, as predicted and as measured.

The form of SONIQ's figure 5 (arXiv 2311.14114; inferred), for our kernels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence

import torch

from benchmarks._frame import Row
from benchmarks._ours import host_descriptor
from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.network import choose_kernels, estimate
from soniq_dse.qat.untrained import untrained_network
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Workload
from soniq_dse.runtime.latency import latency
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.workloads.models.transformer import EncoderDecoder
from soniq_dse.workloads.trace import trace

N_TOKENS, WIDTH, HEADS, DEPTH = 256, 512, 8, 2
GROUPS: Mapping[str, Sequence[str]] = {
    "Linear layers": ("linear", "relu"),
    "attention": ("attention",),
    "LayerNorm": ("layer_norm",),
    "embeddings, places, sums": ("embedding", "add", "slice"),
}
"""What a table shows -> operators of the traced graph."""


def breakdown_rows(palette: str, lengths: Sequence[int], batches: Sequence[int]) -> list[Row]:
    """A row per length (of source and target alike), batch and group of operators; none without a descriptor of the
    host, or of one that has no figures for an operator."""
    hw = host_descriptor()
    rows: list[Row] = []
    for length in lengths if hw is not None else ():
        build = functools.partial(EncoderDecoder, N_TOKENS, length, WIDTH, HEADS, DEPTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workload = trace(build().eval(), torch.zeros(1, 2 * length, dtype=torch.int64), name="encoder-decoder")
        assignment = uniform_assignment(workload, Palette.parse(palette).levels[0])
        packed = PackedNetwork(*untrained_network(build, workload, assignment))
        for batch in batches:
            choices = choose_kernels(hw, packed.shapes(batch))
            predicted = estimate(hw, workload, assignment, batch=batch, choices=choices)
            measured = latency(packed.with_choices(choices), batch=batch).measurement.per_layer_us
            expected = {layer.name: layer.cycles for layer in predicted.per_layer}
            us_per_cycle = predicted.latency_us / predicted.cycles
            rows += [
                {
                    "what": f"encoder-decoder {palette}", "length": length, "batch": batch, "operator": group,
                    "predicted us": us_per_cycle * of_group(workload, expected, operators),
                    "measured us": of_group(workload, measured, operators),
                }
                for group, operators in GROUPS.items()
            ]  # fmt: skip
    return rows


def of_group(workload: Workload, by_node: Mapping[str, float], operators: Sequence[str]) -> float:
    """The sum over nodes of those operators; what turns a tensor into codes counts with the Linear layers."""
    nodes = {node.name for node in workload.nodes if node.op in operators}
    codes = "linear" in operators
    return sum(value for name, value in by_node.items() if name in nodes or (codes and name.endswith(".codes")))
