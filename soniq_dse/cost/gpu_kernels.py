"""Cycles of one CUDA kernel on a GPU, from its descriptor, the launch geometry and the kept loop (``hwmodels/sass``).

A kernel takes ``launch + first access + max(what each unit is busy)``: tensor units, instructions issued, integer units
(``alu``), shared memory, the shared cache, device memory, and ``latency`` where too few bytes are under way to fill the
memory. Blocks go to multiprocessors in equal numbers, so the last ones leave some idle. The largest of these is the
bound. Issue and integer units count the instructions of the kept loop along k; where none is kept (a
source changed since) they count the multiply-accumulates and what unpacking takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from soniq_dse.kernels.gpu_loops import kept_gpu_loops, loop_name, work_of_block
from soniq_dse.kernels.gpu_pack import grid_of
from soniq_dse.records.cost import Bound
from soniq_dse.records.gpu import WARP_THREADS, GpuKernel, GpuModel

LAYER_STAGES = 4
"""Most of any part (``stages`` of ``cuda/layer.h``)."""
FLOAT_TILE = 128
"""Rows and columns that a block of a library's 16-bit matrix product makes."""
_COMPUTE: tuple[Bound, ...] = ("tensor", "issue", "alu", "shared")


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
    depth = padded_k(kernel, k, taps)
    blocks_x, blocks_y = grid_of(kernel, rows, cols)
    blocks = blocks_x * blocks_y * groups
    here = math.ceil(blocks / gpu.multiprocessors.value)
    weight_bytes = kernel.tile[1] * depth * kernel.weight_bits / 8
    row_bytes = kernel.tile[0] * depth * kernel.activation_bits / 8
    results = 4.0 * rows * cols * groups
    in_block = _in_block(gpu, kernel, depth, weight_bytes, row_bytes)
    _add_issued(in_block, gpu, kernel, depth)
    busy = {name: cycles * here for name, cycles in in_block.items()}
    busy["l2"] = (blocks * (weight_bytes + row_bytes) + results) / gpu.l2.read_bytes_per_cycle.value
    stored = blocks_x * weight_bytes * groups
    beyond = blocks_y * row_bytes * groups / taps + results
    from_memory = (0.0 if cached else stored) + (beyond if beyond > gpu.l2.size_bytes.value else 0.0)
    busy["dram"] = from_memory / _memory_bytes_per_cycle(gpu)
    first = gpu.l2.latency_cycles.value if not from_memory else gpu.memory.latency_ns.value * gpu.clock_ghz.value
    under_way = _resident_blocks(gpu, kernel, here) * _bytes_under_way(gpu, kernel)
    busy["latency"] = here * (weight_bytes + row_bytes) / under_way * first
    padded = blocks * kernel.tile[0] * kernel.tile[1] * depth
    return GpuCost(kernel.symbol, busy, first, launch_cycles(gpu), float(padded))


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


def _add_issued(busy: dict[Bound, float], gpu: GpuModel, kernel: GpuKernel, k: int) -> None:
    """Instructions of the kept loop, for each that multiplies."""
    loop = kept_gpu_loops(gpu.architecture).get(loop_name(kernel))
    if loop is None:
        return
    part, iterations = gpu.multiprocessor, work_of_block(kernel, k) / loop.work
    alu, imad = (WARP_THREADS / part.lanes_per_cycle[name].value for name in ("lop3", "imad"))
    busy["issue"] = iterations * loop.instructions / part.issue_warps_per_cycle.value
    busy["alu"] = max(busy.get("alu", 0.0), iterations * loop.alu * alu, iterations * loop.imad * imad)


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


def _stage_bytes(kernel: GpuKernel) -> float:
    """Of both operands of a step, in shared memory."""
    return kernel.k_group * (kernel.tile[1] * kernel.weight_bits + kernel.tile[0] * kernel.activation_bits) / 8


def _bytes_under_way(gpu: GpuModel, kernel: GpuKernel) -> float:
    """Bytes that a block has asked for while it waits: all stages but one, or four loads of 16 bytes a thread."""
    if kernel.op == "gemv":
        return kernel.threads * 16.0 * 4
    loop = kept_gpu_loops(gpu.architecture).get(loop_name(kernel))
    stages = loop.shared_bytes // _stage_bytes(kernel) if loop else 2
    if kernel.symbol.startswith("layer"):  # whose parts share the room of the deepest
        stages = min(stages, LAYER_STAGES)
    return (stages - 1) * _stage_bytes(kernel)


def _resident_blocks(gpu: GpuModel, kernel: GpuKernel, here: int) -> float:
    """Blocks on one multiprocessor at a time."""
    part, loop = gpu.multiprocessor, kept_gpu_loops(gpu.architecture).get(loop_name(kernel))
    registers = kernel.threads * (loop.registers if loop else WARP_THREADS)
    shared = max(1.0, loop.shared_bytes if loop else 4 * _stage_bytes(kernel) if kernel.op == "gemm" else 0)
    room = min(part.threads_max.value // kernel.threads, part.blocks_max.value, part.shared_size_bytes.value // shared)
    return max(1.0, min(room, part.registers_total.value // registers, here))


def _memory_bytes_per_cycle(gpu: GpuModel) -> float:
    return gpu.memory.read_gb_per_s.value * gpu.memory.sustained_share.value / gpu.clock_ghz.value


def launch_cycles(gpu: GpuModel) -> float:
    """Of one launch."""
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
    return GpuCost("fp16", busy, first, launch_cycles(gpu), float(blocks * tile_rows * tile_cols * k))


def pass_cost(gpu: GpuModel, name: str, n_bytes: float) -> GpuCost:
    """A kernel that reads and writes ``n_bytes`` and computes next to nothing: packing, pools, sums."""
    rate = _memory_bytes_per_cycle(gpu) if n_bytes > gpu.l2.size_bytes.value else gpu.l2.read_bytes_per_cycle.value
    bound: Bound = "dram" if n_bytes > gpu.l2.size_bytes.value else "l2"
    return GpuCost(name, {bound: n_bytes / rate}, gpu.l2.latency_cycles.value, launch_cycles(gpu), 0.0)


def padded_k(kernel: GpuKernel, k: int, taps: int) -> int:
    """k with every tap padded to the kernel's group."""
    return taps * -(-(k // taps) // kernel.k_group) * kernel.k_group
