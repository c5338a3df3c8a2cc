"""Whole networks to be timed with random weights: their graphs, and ours at a mix of levels."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks._ours import SEGMENT_MULTIPLE, Mix, host_descriptor
from soniq_dse.cost.bounds import uniform_assignment
from soniq_dse.cost.network import choose_kernels
from soniq_dse.qat.untrained import untrained_network
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.network import (
    Conv2dNode,
    LinearNode,
    NetworkNode,
    QuantizeNode,
    TensorQuantizer,
)
from soniq_dse.records.palette import Palette
from soniq_dse.runtime.autotune import autotune, tuned_choices
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.pack import PackedNetwork
from soniq_dse.store import array_sha256
from soniq_dse.workloads import load_model
from soniq_dse.workloads.models.blocks import cifar_resnet
from soniq_dse.workloads.trace import trace

FREE = Palette.parse("w1a1")
"""The palette of a topology whose tensors take any other."""
DECODER_BLOCKS, DECODER_WIDTH, DECODER_INNER, DECODER_ENDS = 6, 768, 3072, 64


@dataclass(frozen=True)
class Network:
    """A graph to be timed: ``build`` gives the module, ``in_shape`` is one sample's."""

    name: str
    build: Callable[[], nn.Module]
    in_shape: tuple[int, ...]

    @functools.cached_property
    def topology(self) -> PackedNetwork:
        """The graph at ``FREE``, untrained."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workload = trace(self.build().eval(), torch.zeros(1, *self.in_shape), name=self.name)
        return PackedNetwork(*untrained_network(self.build, workload, uniform_assignment(workload, FREE.levels[0])))


def resnet18_imagenet() -> nn.Module:
    """ResNet-18 in its form for 224x224 images: a 7x7 stem of stride 2, a 3x3 max pool of stride 2, four stages, 1000
    classes."""
    body = cifar_resnet((64, 128, 256, 512), blocks_per_stage=2, n_classes=1000)
    body[0] = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    parts = list(body.named_children())
    parts.insert(3, ("max_pool", nn.MaxPool2d(3, 2, padding=1)))
    return nn.Sequential(OrderedDict(parts))


def decoder_linears() -> nn.Module:
    """The Linear layers of a decoder of width 768, in a chain with ReLU between: per block four of 768x768 (q, k, v and
    the output of attention) and the two of the feed-forward part. Small layers of 64 features, pinned to
    W8A8, stand at both ends."""
    widths = [DECODER_ENDS]
    widths += [*[DECODER_WIDTH] * 5, DECODER_INNER] + [*[DECODER_WIDTH] * 5, DECODER_INNER] * (DECODER_BLOCKS - 1)
    widths += [DECODER_WIDTH, DECODER_ENDS]
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet18 32x32", load_model("resnet18")[0], (3, 32, 32)),
        Network("resnet18 224x224", resnet18_imagenet, (3, 224, 224)),
        Network("resnet20 32x32", load_model("resnet20")[0], (3, 32, 32)),
        Network("mobilenetv2 32x32", load_model("mobilenetv2")[0], (3, 32, 32)),
        Network("vit 32x32", load_model("vit_cifar")[0], (3, 32, 32)),
        Network("decoder linears, batch 1", decoder_linears, (DECODER_ENDS,)),
    )
}


def random_network(topology: PackedNetwork, mix: Mix) -> PackedNetwork:
    """The graph of ``topology``, which is at ``FREE``, with random integers at ``mix`` instead: each free tensor has
    shares of its channels at each level, whole segments of 64 where it is wide enough. All else stays as it is."""
    rng, arrays = np.random.default_rng(0), dict(topology.arrays)

    def kept(array: NDArray[Any]) -> ArrayRef:
        ref = ArrayRef(sha256=array_sha256(array), shape=array.shape, dtype=str(array.dtype))
        arrays[ref.sha256] = array
        return ref

    nodes: dict[str, NetworkNode] = {}
    for node in topology.network.nodes:
        made = node
        if isinstance(node, QuantizeNode) and node.quantizer.palette.levels == FREE.levels:
            made = node.model_copy(update={"quantizer": _quantizer(node, mix)})
        elif isinstance(node, Conv2dNode | LinearNode):
            codes = nodes[node.inputs[0]]
            while not isinstance(codes, QuantizeNode):
                codes = nodes[codes.inputs[0]]
            made = node.model_copy(update={name: kept(array) for name, array in _arrays(node, codes, rng).items()})
        nodes[node.name] = made
    return PackedNetwork(topology.network.model_copy(update={"nodes": tuple(nodes.values())}), arrays)


def _quantizer(node: QuantizeNode, mix: Mix) -> TensorQuantizer:
    palette = Palette(levels=tuple(level for level, _ in mix))
    levels = levels_of(len(node.quantizer.level_of_channel), [share for _, share in mix])
    steps = tuple(float(np.float32(2.5 / 2**level.activation_bits)) for level in palette.levels)
    return TensorQuantizer(palette=palette, level_of_channel=levels, steps=steps, signed=node.quantizer.signed)


def levels_of(channels: int, shares: list[float]) -> tuple[int, ...]:
    """The level of each channel, ascending."""
    multiple = SEGMENT_MULTIPLE if channels >= 4 * SEGMENT_MULTIPLE else 1
    counts = [round(share * channels / multiple) * multiple for share in shares[:-1]]
    counts.append(channels - sum(counts))
    return tuple(level for level, count in enumerate(counts) for _ in range(count))


def _arrays(node: Conv2dNode | LinearNode, codes: QuantizeNode, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Integers of each channel's level; scales that spread sums over the range of the next quantizer."""
    quantizer, shape = codes.quantizer, node.weight.shape
    groups = node.groups if isinstance(node, Conv2dNode) else 1
    bits = np.array([level.weight_bits for level in quantizer.palette.levels])
    group = np.arange(shape[0])[:, None] // (shape[0] // groups)
    of_weight = bits[np.asarray(quantizer.level_of_channel)[group * shape[1] + np.arange(shape[1])]]
    most = np.where(of_weight == 8, 127, 2**of_weight - 1).reshape(*of_weight.shape, *[1] * (len(shape) - 2))
    drawn = rng.integers(-most, most + 1, shape)
    odd = np.clip(drawn // 2 * 2 + 1, -most, most)
    size = np.asarray(quantizer.steps) / 2.0 ** (bits - 1) / np.prod(shape[1:]) ** 0.5
    return {
        "weight": np.where(most == 127, drawn, odd).astype(np.int8),
        "scale": (size[:, None] * rng.uniform(0.5, 1.5, (len(bits), shape[0]))).astype(np.float32),
        "bias": (0.3 * rng.standard_normal(shape[0])).astype(np.float32),
    }


def ours(packed: PackedNetwork, threads: int, *, tune: bool) -> Executor:
    """Ours on a random sample, on the kernels of ``soniq-dse run``: those measured on this machine (with ``tune``,
    all are), then those that the cost model chooses where a descriptor speaks of the host."""
    choices = autotune(packed, threads=threads) if tune else tuned_choices(threads=threads)
    hw = host_descriptor()
    if hw is not None:
        choices = choose_kernels(hw, packed.shapes(1), threads=threads, known=choices)
    packed = packed.with_choices(choices)
    executor = packed.executor(1, threads=threads)
    executor.set_input(sample_of(packed.in_shape))
    return executor


def sample_of(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One sample of standard normal numbers."""
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
