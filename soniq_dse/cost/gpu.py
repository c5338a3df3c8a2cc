"""Latency of a network on a GPU, from its descriptor and the launch geometry of the CUDA kernels; nothing is fitted.

A kernel takes ``launch + first access + max(what each unit is busy)``: tensor units, integer units (``alu``), shared
memory, the shared cache, device memory, and ``latency`` where too few bytes are under way to fill the memory. Blocks go
to multiprocessors in equal numbers, so the last ones leave some idle. What the largest of these is, is the bound; no
kernel of its geometry is faster than that alone. Weights of the run before are still in the cache where those of the
whole network fit.

A convolution, and a layer of several segments, are one launch of the layer kernel. Not modelled: the instructions
around the multiply-accumulates, bank conflicts, clocks under load.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from soniq_dse.cost.graph import MatmulLayer, at_batch, is_free, segments_of
from soniq_dse.errors import UserError
from soniq_dse.hardware.gpus import gpu_levels
from soniq_dse.kernels.gpu_catalog import gpu_kernels_for, gpu_layer_kernel_for, part_for
from soniq_dse.kernels.gpu_pack import grid_of
from soniq_dse.records.cost import Bound, CostTerm, Estimate, LayerEstimate
from soniq_dse.records.design import Assignment
from soniq_dse.records.gpu import WARP_THREADS, GpuKernel, GpuModel
from soniq_dse.records.palette import Level, LevelCost
from soniq_dse.records.workload import Conv2dLayer, GemmLayer, Node, Segment, Workload

FACTOR = 2.0
"""From half to twice: what is said of the error of a model that nothing was held against."""
FLOAT_TILE = 128
"""Rows and columns that a block of a library's 16-bit matrix product makes."""
_ABSORBED = frozenset({"input", "flatten", "batch_norm", "relu"})
"""Done by the kernel before or after."""
_COMPUTE: tuple[Bound, ...] = ("tensor", "alu", "shared")


@dataclass(frozen=True)
class GpuCost:
    """Cycles of one kernel: ``busy`` of each unit, of which the largest counts, and ``before`` it gets there."""

    kernel: str
    busy: dict[Bound, float]
    first_access: float
    launch: float
    macs: float

    @property
    def cycles(self) -> float:
        """All of it."""
        return self.launch + self.first_access + max(self.busy.values())

    @property
    def bound(self) -> Bound:
        """What it waits for most."""
        bound = max(self.busy, key=lambda name: self.busy[name])
        return bound if self.busy[bound] >= self.launch + self.first_access else "launch"

    @property
    def compute(self) -> float:
        """The part that no memory outside the multiprocessors causes."""
        return max((self.busy[name] for name in _COMPUTE if name in self.busy), default=0.0)


def kernel_cost(
    gpu: GpuModel,
    kernel: GpuKernel,
    rows: int,
    cols: int,
    k: int,
    *,
    groups: int = 1,
    cached: bool = False,
    taps: int = 1,
) -> GpuCost:
    """One launch of ``kernel`` for ``[rows, k] x [cols, k]``, ``groups`` times side by side.

    Args:
        cached: whether the weights are in the shared cache from before.
        taps: that share k; every tap is padded, and reads the same rows again.
    """
    padded_k = _padded_k(kernel, k, taps)
    blocks_x, blocks_y = grid_of(kernel, rows, cols)
    blocks = blocks_x * blocks_y * groups
    here = math.ceil(blocks / gpu.multiprocessors.value)
    weight_bytes = kernel.tile[1] * padded_k * kernel.weight_bits / 8
    row_bytes = kernel.tile[0] * padded_k * kernel.activation_bits / 8
    results = 4.0 * rows * cols * groups
    busy = {name: cycles * here for name, cycles in _in_block(gpu, kernel, padded_k, weight_bytes, row_bytes).items()}
    busy["l2"] = (blocks * (weight_bytes + row_bytes) + results) / gpu.l2.read_bytes_per_cycle.value
    stored = blocks_x * weight_bytes * groups
    beyond = blocks_y * row_bytes * groups / taps + results
    from_memory = (0.0 if cached else stored) + (beyond if beyond > gpu.l2.size_bytes.value else 0.0)
    busy["dram"] = from_memory / _memory_bytes_per_cycle(gpu)
    first = gpu.l2.latency_cycles.value if not from_memory else gpu.memory.latency_ns.value * gpu.clock_ghz.value
    under_way = _resident_blocks(gpu, kernel, here) * _bytes_under_way(kernel)
    busy["latency"] = here * (weight_bytes + row_bytes) / under_way * first
    padded = blocks * kernel.tile[0] * kernel.tile[1] * padded_k
    return GpuCost(kernel.symbol, busy, first, _launch(gpu), float(padded))


def _in_block(gpu: GpuModel, kernel: GpuKernel, k: int, weight_bytes: float, row_bytes: float) -> dict[Bound, float]:
    """Cycles for which one block keeps the units of its multiprocessor busy."""
    lanes = {name: figure.value for name, figure in gpu.multiprocessor.lanes_per_cycle.items()}
    rate = gpu.operations[kernel.operation].macs_per_cycle.value
    rows, cols = kernel.tile[0], kernel.tile[1]
    planes = kernel.weight_bits * kernel.activation_bits
    if kernel.algorithm == "dp4a":
        steps = rows * cols * k / 4
        return {"alu": max(steps / lanes["dp4a"], steps / lanes["lop3"])}
    if kernel.algorithm == "popc":
        words = rows * cols * k * planes / 32
        return {"alu": max(words / lanes["popc"], 2 * words / lanes["lop3"])}
    shared = _shared(gpu, kernel, weight_bytes, row_bytes)
    if kernel.algorithm == "csa":  # two words: four LOP3, one POPC
        words = rows * cols * k * planes / 32
        return {"alu": words * max(2 / lanes["lop3"], 0.5 / lanes["popc"]), "shared": shared}
    if kernel.algorithm == "hfma2":
        return {"alu": rows * cols * k / 2 / lanes["hfma2"], "shared": shared}
    if kernel.op == "gemv":  # all eight columns are multiplied, whatever rows there are
        return {"tensor": 8 * cols * k * kernel.weight_bits / rate}
    macs = rows * cols * k * (planes if kernel.algorithm == "bmma" else 1)
    busy: dict[Bound, float] = {"tensor": macs / rate, "shared": shared}
    operand_bits = gpu.operations[kernel.operation].operand_bits
    if kernel.weight_bits < operand_bits > 1:  # a shift and a mask a word, in every column of warps
        busy["alu"] = 2 * _warps(kernel)[1] * cols * k * operand_bits / 32 / lanes["lop3"]
    return busy


def _shared(gpu: GpuModel, kernel: GpuKernel, weight_bytes: float, row_bytes: float) -> float:
    """Cycles of shared memory: every operand is written once and read by every warp that needs it; on vector units the
    lanes that share a word read it again, four of weights and two of activations at a time."""
    across, along = _warps(kernel)
    again = (4, 2) if kernel.algorithm in ("csa", "hfma2") else (1, 1)
    read = weight_bytes * (along * again[0] + 1) + row_bytes * (across * again[1] + 1)
    return read / gpu.multiprocessor.shared_bytes_per_cycle.value


def _warps(kernel: GpuKernel) -> tuple[int, int]:
    """Warps of a block along output channels and along rows (``WR`` and ``WC`` of ``cuda/staged_tile.h``)."""
    along = 4 if kernel.algorithm == "csa" or kernel.symbol.startswith("layer") else 2
    return kernel.threads // WARP_THREADS // along, along


def _bytes_under_way(kernel: GpuKernel) -> float:
    """Bytes that a block has asked for while it waits: a pipeline of at least two stages, or a few loads a thread."""
    if kernel.op == "gemm":
        return kernel.k_group * (kernel.tile[1] * kernel.weight_bits + kernel.tile[0] * kernel.activation_bits) / 8
    return kernel.threads * 16.0 * 4  # four loads of 16 bytes


def _resident_blocks(gpu: GpuModel, kernel: GpuKernel, here: int) -> float:
    """Blocks on one multiprocessor at a time, registers left out."""
    part = gpu.multiprocessor
    shared = 4 * _bytes_under_way(kernel) if kernel.op == "gemm" else 1.0
    room = min(part.threads_max.value // kernel.threads, part.blocks_max.value, part.shared_size_bytes.value // shared)
    return max(1.0, min(room, here))


def _memory_bytes_per_cycle(gpu: GpuModel) -> float:
    return gpu.memory.read_gb_per_s.value * gpu.memory.sustained_share.value / gpu.clock_ghz.value


def _launch(gpu: GpuModel) -> float:
    return gpu.overhead.launch_us.value * 1000 * gpu.clock_ghz.value


def float_cost(gpu: GpuModel, rows: int, cols: int, k: int, *, groups: int = 1, cached: bool = False) -> GpuCost:
    """A library's matrix product of 16-bit floats at the rate of the tensor units, tiles cut to what is asked."""
    tile_rows, tile_cols = (min(FLOAT_TILE, -(-length // 16) * 16) for length in (rows, cols))
    blocks = math.ceil(rows / tile_rows) * math.ceil(cols / tile_cols) * groups
    here = math.ceil(blocks / gpu.multiprocessors.value)
    rate = max(o.macs_per_cycle.value for o in gpu.operations.values() if o.operand_bits == 16 and o.native)
    weights, results = 2.0 * cols * k * groups, 2.0 * (rows * k + rows * cols) * groups
    from_memory = (0.0 if cached else weights) + (results if results > gpu.l2.size_bytes.value else 0.0)
    busy: dict[Bound, float] = {
        "tensor": here * tile_rows * tile_cols * k / rate,
        "l2": (blocks * 2.0 * k * (tile_rows + tile_cols) + results) / gpu.l2.read_bytes_per_cycle.value,
        "dram": from_memory / _memory_bytes_per_cycle(gpu),
    }
    first = gpu.memory.latency_ns.value * gpu.clock_ghz.value
    return GpuCost("fp16", busy, first, _launch(gpu), float(blocks * tile_rows * tile_cols * k))


def pass_cost(gpu: GpuModel, name: str, n_bytes: float) -> GpuCost:
    """A kernel that reads and writes ``n_bytes`` and computes next to nothing: packing, pools, sums."""
    rate = _memory_bytes_per_cycle(gpu) if n_bytes > gpu.l2.size_bytes.value else gpu.l2.read_bytes_per_cycle.value
    bound: Bound = "dram" if n_bytes > gpu.l2.size_bytes.value else "l2"
    return GpuCost(name, {bound: n_bytes / rate}, gpu.l2.latency_cycles.value, _launch(gpu), 0.0)


def gpu_estimate(
    gpu: GpuModel, workload: Workload, assignment: Assignment | None = None, *, batch: int = 1, threads: int = 1
) -> Estimate:
    """Predicted latency of ``workload`` on ``gpu``; without an assignment in 16-bit floats, as a library does it.

    Raises:
        UserError: threads other than 1, batch below 1, or a level that the GPU does not compute.
    """
    if batch < 1 or threads != 1:
        raise UserError(f"batch, threads: expected 1 or more, and 1 on a GPU, got {batch} and {threads}")
    cached = _weight_bytes(workload, assignment) <= gpu.l2.size_bytes.value
    packed: set[str] = set()
    layers = []
    for node in workload.nodes:
        if node.layer is not None:
            segments = segments_of(workload, node, assignment)
            pack = segments is not None and node.inputs[0] not in packed
            packed |= {node.inputs[0]} if pack else set()
            layers.append(_layer(gpu, workload, node, segments, batch, cached=cached, pack=pack))
        elif node.op not in _ABSORBED:
            elements = prod(node.shape) + sum(prod(workload.node(name).shape) for name in node.inputs)
            cost = pass_cost(gpu, node.op, 4.0 * elements * batch / workload.input_shape[0])
            layers.append(_estimate_of(gpu, node.name, node.op, [], [cost], 0, "one pass over its operands"))
    return _summed(gpu, layers, batch)


def gpu_level_costs(gpu: GpuModel, workload: Workload, *, batch: int = 1, threads: int = 1) -> tuple[LevelCost, ...]:
    """What each native level of ``gpu`` costs over all layers whose input a palette may decide, narrowest first.

    Raises:
        UserError: as ``gpu_estimate``.
    """
    if batch < 1 or threads != 1:
        raise UserError(f"batch, threads: expected 1 or more, and 1 on a GPU, got {batch} and {threads}")
    layers = [
        at_batch(n.layer, workload, batch) for n in workload.nodes if n.layer is not None and is_free(workload, n)
    ]
    found = []
    for level in dict.fromkeys(native.level for native in gpu_levels(gpu)):
        costs = [_cheapest(gpu, layer, level, layer.segment_channels, cached=True) for layer in layers]
        cycles, macs = sum(cost.cycles for cost in costs), sum(layer.macs for layer in layers)
        native = next(native for native in gpu_levels(gpu) if native.level == level)
        kernels = Counter(cost.kernel for cost in costs)
        launched = sum(cost.launch + cost.first_access for cost in costs)
        reason = (
            f"{macs / cycles:.3g} MAC/cycle over the network; {100 * launched / cycles:.0f} % of it launches and first "
            "accesses; model only, not measured"
            if costs
            else native.reason
        )
        found.append(
            LevelCost(
                level=level,
                cycles=cycles,
                cycles_per_mac=cycles / macs if macs else 1.0 / native.macs_per_cycle,
                kernel=kernels.most_common(1)[0][0] if kernels else native.recipe,
                reason=reason,
            )
        )
    return tuple(found)


def _cheapest(gpu: GpuModel, layer: MatmulLayer, level: Level, channels: int, *, cached: bool) -> GpuCost:
    """The kernel that is predicted to take least for ``channels`` input channels of each group."""
    kernels: list[GpuKernel] = []
    if level in [native.level for native in gpu_levels(gpu)]:
        plain = isinstance(layer, GemmLayer) or _is_pointwise(layer)
        kernels = [part_for(gpu_layer_kernel_for(gpu), level), *(gpu_kernels_for(level, gpu) if plain else ())]
    k = layer.taps * max(1, channels)
    fitting = [kernel for kernel in kernels if _padded_k(kernel, k, layer.taps) <= kernel.k_max]
    if not fitting:
        known = ", ".join(dict.fromkeys(native.level.name for native in gpu_levels(gpu)))
        raise UserError(f"level {level.name}: expected one that {gpu.name} computes natively ({known})")
    return min((_cost_of(gpu, kernel, layer, k, cached=cached) for kernel in fitting), key=lambda cost: cost.cycles)


def _in_one_launch(gpu: GpuModel, layer: MatmulLayer, segments: Sequence[Segment], *, cached: bool) -> list[GpuCost]:
    """Several segments by the layer kernel: what comes before is paid once."""
    if len(segments) == 1:
        return [_cheapest(gpu, layer, segments[0].level, segments[0].channels // layer.n_groups, cached=cached)]
    costs: list[GpuCost] = []
    for segment in segments:
        part = part_for(gpu_layer_kernel_for(gpu), segment.level)
        k = layer.taps * max(1, segment.channels // layer.n_groups)
        cost = _cost_of(gpu, part, layer, k, cached=cached)
        costs.append(replace(cost, launch=0.0, first_access=0.0) if costs else cost)
    return costs


def _cost_of(gpu: GpuModel, kernel: GpuKernel, layer: MatmulLayer, k: int, *, cached: bool) -> GpuCost:
    cols, groups = layer.out_channels // layer.n_groups, layer.n_groups
    return kernel_cost(gpu, kernel, layer.rows, cols, k, groups=groups, cached=cached, taps=layer.taps)


def _padded_k(kernel: GpuKernel, k: int, taps: int) -> int:
    return taps * -(-(k // taps) // kernel.k_group) * kernel.k_group


def _is_pointwise(layer: Conv2dLayer) -> bool:
    """A matrix product of its pixels as they lie."""
    return layer.kernel == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0)


def _layer(
    gpu: GpuModel,
    workload: Workload,
    node: Node,
    segments: Sequence[Segment] | None,
    batch: int,
    *,
    cached: bool,
    pack: bool,
) -> LayerEstimate:
    assert node.layer is not None
    layer = at_batch(node.layer, workload, batch)
    cols, groups = layer.out_channels // layer.n_groups, layer.n_groups
    if segments is None:
        k = layer.segment_channels * layer.taps
        cost = float_cost(gpu, layer.rows, cols, k, groups=groups, cached=cached)
        note = "16-bit floats at the rate of tensor units: a library at its best"
        return _estimate_of(gpu, node.name, node.op, [cost], [], layer.macs, note)
    parts = _in_one_launch(gpu, layer, segments, cached=cached)
    elements = prod(workload.node(node.inputs[0]).shape) * batch / workload.input_shape[0]
    passes = [pass_cost(gpu, "pack", elements * 5.0)] if pack else []
    return _estimate_of(gpu, node.name, node.op, parts, passes, layer.macs, "")


def _estimate_of(
    gpu: GpuModel, name: str, op: str, parts: Sequence[GpuCost], passes: Sequence[GpuCost], macs: int, note: str
) -> LayerEstimate:
    every = [*parts, *passes]
    cycles = sum(cost.cycles for cost in every)
    terms = {
        "compute": sum(cost.compute for cost in parts),
        "memory": sum(max(cost.busy.values()) - cost.compute + cost.first_access for cost in parts),
        "packing": sum(cost.cycles - cost.launch for cost in passes),
        "overhead": sum(cost.launch for cost in every),
    }
    padded = sum(cost.macs for cost in parts)
    return LayerEstimate(
        name=name,
        op=op,
        cycles=cycles,
        latency_us=_microseconds(gpu, cycles),
        bound=max(every, key=lambda cost: cost.cycles).bound,
        kernels=tuple(dict.fromkeys(cost.kernel for cost in every)),
        terms=tuple(CostTerm.model_validate({"name": key, "cycles": value}) for key, value in terms.items()),
        macs=macs,
        padding_waste=max(0.0, 1 - macs / padded) if padded else 0.0,
        note=note,
    )


def _summed(gpu: GpuModel, layers: Iterable[LayerEstimate], batch: int) -> Estimate:
    per_layer = tuple(layers)
    cycles = sum(layer.cycles for layer in per_layer)
    latency_us = _microseconds(gpu, cycles)
    return Estimate(
        hardware=gpu.name,
        hardware_sha256=gpu.identity(),
        cycles=cycles,
        latency_us=latency_us,
        low_us=latency_us / FACTOR,
        high_us=latency_us * FACTOR,
        bound=max(per_layer, key=lambda layer: layer.cycles).bound if per_layer else "launch",
        batch=batch,
        threads=1,
        per_layer=per_layer,
        model="gpu",
        interval="model only, not measured: half to twice, by assumption",
    )


def _weight_bytes(workload: Workload, assignment: Assignment | None) -> float:
    total = 0.0
    for node in workload.nodes:
        if node.layer is not None:
            segments = segments_of(workload, node, assignment)
            channels = node.layer.segment_channels * node.layer.n_groups
            bits = sum(s.channels * s.weight_bits for s in segments) / channels if segments else 16.0
            total += node.layer.n_weights * bits / 8
    return total


def _microseconds(gpu: GpuModel, cycles: float) -> float:
    return cycles / gpu.clock_ghz.value / 1000
