"""Wraps a model for training: parametrizations on weights, pre-hooks on inputs; the user's classes stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from soniq_dse.errors import UserError
from soniq_dse.qat.fake_quant import ActivationQuantizer, ClassMixture, NoiseKeys, Phase, WeightQuantizer
from soniq_dse.qat.problem import ClassSize, Levels, Problem
from soniq_dse.records.design import Assignment, Candidate
from soniq_dse.records.palette import FLOAT_BITS, Level, Palette
from soniq_dse.records.workload import Node, TensorClass, Workload
from soniq_dse.workloads.calls import MOVES
from soniq_dse.workloads.pins import graph_of

WEIGHT_ONLY_BITS = (2, 4, 8)
"""Weights that deployed layers have beside fp32 activations."""


@dataclass
class QuantizedModel:
    """A model under quantization; ``mixtures`` by tensor class, ``activations`` by tensor, ``weights`` by node."""

    name: str
    model: nn.Module
    workload: Workload
    problem: Problem
    keys: NoiseKeys
    mixtures: dict[str, ClassMixture]
    activations: dict[str, ActivationQuantizer]
    weights: dict[str, WeightQuantizer]

    def calibrate(self, inputs: Tensor, *, measure_noise: bool = False) -> None:
        """Set the activations' first steps on a batch, weights and statistics untouched.

        With ``measure_noise`` the noise of phase 1 gets, per tensor and level, the rms error that rounding has there.
        """
        for mixture in self.mixtures.values():
            mixture.measures_noise = measure_noise
        self.set_phase("calibrate")
        self.model.eval()
        with torch.no_grad():
            self.model(inputs)
        self.set_phase("noise")

    def set_phase(self, phase: Phase, *, clipped: bool = True) -> None:
        """What the quantizers of every class do, and whether the gradient of rounding ends at the outer codes."""
        for mixture in self.mixtures.values():
            mixture.phase, mixture.clipped = phase, clipped

    def scale_noise(self, scale: float) -> None:
        """Set the size of all noise: 1 for what a half step or the calibration says."""
        for mixture in self.mixtures.values():
            mixture.noise_scale = scale

    def harden(self, levels: Levels) -> None:
        """Fix the levels of the unpinned classes."""
        for name, of_class in levels.items():
            self.mixtures[name].harden(of_class)

    def forget(self) -> None:
        """Let go of the tensors of a forward pass, of one that failed too."""
        for quantizer in self.activations.values():
            quantizer.forget()

    def log_steps(self) -> list[nn.Parameter]:
        """The logarithms of all steps."""
        return [q.log_step for q in self.activations.values()] + [q.log_step for q in self.weights.values()]

    def model_parameters(self) -> list[nn.Parameter]:
        """The model's own parameters."""
        own = {id(parameter) for parameter in self.log_steps()}
        own |= {id(mixture.logits) for mixture in self.mixtures.values()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in own]

    def assignment(self, levels: Levels) -> Assignment:
        """The record of an allocation, pinned classes included."""
        pinned = {name: m.palette for name, m in self.mixtures.items() if name not in levels}
        every = {name: levels.get(name, (0,) * m.channels) for name, m in self.mixtures.items()}
        names = {mixture: name for name, mixture in self.mixtures.items()}
        bits, count = 0.0, 0
        for quantizer in self.weights.values():
            mixture, n_weights = quantizer.mixture, quantizer.n_weights
            of_level = [level.weight_bits for level in mixture.palette.levels]
            bits += n_weights / mixture.channels * sum(of_level[j] for j in every[names[mixture]])
            count += n_weights
        overall = bits / max(count, 1)
        return Assignment(
            palette=self.problem.palette,
            level_of_channel=every,
            pinned=pinned,
            bits_per_weight=self.problem.bits_per_weight(levels) if levels else overall,
            bits_per_weight_all=overall,
        )


def check_trainable(workload: Workload, palette: Palette) -> None:
    """Refuse what could be trained but not deployed, so that a run need not begin.

    Raises:
        UserError: a level is weight-only but that of pinned linear layers, the network has an operator that stays in
            floating point, or a linear layer reads more than rows of features, or of tokens.
    """
    _refuse_weight_only(palette)
    check_operators(workload)


def check_operators(workload: Workload) -> None:
    """As ``check_trainable``, whatever the palette."""
    _refuse_weight_only_windows(workload)
    _refuse_unsupported(workload)
    for node in workload.nodes:
        shape = workload.node(node.inputs[0]).shape if node.op == "linear" else ()
        if len(shape) > 3:
            expected = "[n, features] or [n, tokens, features]"
            raise UserError(f"layer {node.module}: expected an input of shape {expected}, got {list(shape)}")


def quantize_model(model: nn.Module, workload: Workload, candidate: Candidate) -> QuantizedModel:
    """Wrap ``model`` in place for ``candidate``, its pins and granularity included, to be trained and deployed.

    Raises:
        UserError: as ``check_trainable`` and ``wrap``.
    """
    workload = graph_of(workload, candidate)
    check_trainable(workload, candidate.palette)
    c, whole = candidate, candidate.granularity == "layer"
    problem = Problem((), c.palette, c.budget_bits, c.k_group, c.seed, c.costs, whole)
    return wrap(model, workload, problem, c.name)


def wrap(model: nn.Module, workload: Workload, request: Problem, name: str) -> QuantizedModel:
    """Wrap ``model`` in place: every quantized layer of ``workload``, and its embeddings at 8 bits.

    Args:
        model: the network; what ``workload`` lists as unsupported stays in floating point.
        workload: its trace, with its pins.
        request: palette, budget, group and seed; its classes are found here.
        name: of the design.

    Raises:
        UserError: a layer is called twice, or has a padding other than zeros; weight-only levels are mixed with others;
            the budget cannot be met.
    """
    keys = NoiseKeys(request.seed)
    floating = {part.node for part in workload.unsupported}
    nodes = _matmul_nodes(workload, floating)
    palettes = _palettes(workload, nodes, request.palette)
    mixtures = {
        c.name: ClassMixture(palettes[c.name], c.channels, signed=not c.nonnegative)
        for c in workload.tensor_classes
        if c.name in palettes
    }
    activations: dict[str, ActivationQuantizer] = {}
    weights: dict[str, WeightQuantizer] = {}
    for node in nodes:
        module = _module_of(model, node)
        mixture, tensor = mixtures[_class_of(workload, node).name], node.inputs[0]
        groups = module.groups if isinstance(module, nn.Conv2d) else 1
        weights[node.name] = WeightQuantizer(mixture, module.weight, groups, keys)
        if tensor not in activations and not mixture.weight_only:
            axis = 1 if isinstance(module, nn.Conv2d) else -1
            activations[tensor] = ActivationQuantizer(mixture, module.weight.shape[1] * groups, axis, keys)
            module.add_module("input_quantizer", activations[tensor])
        _attach(module, activations.get(tensor), weights[node.name])
    _absorb_relus(model, workload, activations, {node.name for node in nodes})
    for table, quantizer in _embeddings(model, workload, keys).items():
        weights[table], mixtures[f"{table}.weight"] = quantizer, quantizer.mixture
    free = [c for c in workload.tensor_classes if c.name in mixtures and palettes[c.name] is request.palette]
    problem = replace(request, classes=tuple(_class_size(workload, c) for c in free))
    quantized = QuantizedModel(name, model, workload, problem, keys, mixtures, activations, weights)
    model.register_forward_pre_hook(lambda *_: keys.advance())
    model.register_forward_hook(lambda *_: quantized.forget(), always_call=True)
    return quantized


def _palettes(workload: Workload, nodes: list[Node], palette: Palette) -> dict[str, Palette]:
    """Class -> its palette: ``palette`` itself, or its pinned level alone."""
    found = {c.name: palette_of(c, palette) for c in (_class_of(workload, node) for node in nodes)}
    for one in found.values():
        if len({level.is_weight_only for level in one.levels}) > 1:
            raise UserError(f"palette {one.name}: expected weight-only levels alone, or none, got both")
    return found


def _absorb_relus(
    model: nn.Module, workload: Workload, activations: Mapping[str, ActivationQuantizer], quantized: set[str]
) -> None:
    """Let ``nn.ReLU`` modules pass what only unsigned quantizers read, straight or behind a max pool.

    Clamping at zero is the quantizer's too, and commutes with the maximum, values and gradients alike: that saves two
    passes over memory a step.
    """
    readers: dict[str, list[Node]] = {node.name: [] for node in workload.nodes}
    for node in workload.nodes:
        for tensor in node.inputs:
            readers[tensor].append(node)
    calls = Counter(node.module for node in workload.nodes)
    for node in workload.nodes:
        module: Any = model.get_submodule(node.module)
        if not isinstance(module, nn.ReLU) or module.inplace or calls[node.module] > 1:
            continue
        tensor = node.name
        while len(readers[tensor]) == 1 and readers[tensor][0].op in ("max_pool2d", "flatten"):
            tensor = readers[tensor][0].name
        quantizer = activations.get(tensor)
        if quantizer and not quantizer.mixture.signed and {reader.name for reader in readers[tensor]} <= quantized:
            module.forward = _Absorbed(module.forward, quantizer.mixture)


@dataclass(frozen=True)
class _Absorbed:
    """The forward of a ReLU in front of a quantizer that clamps at zero itself."""

    forward: Callable[[Tensor], Tensor]
    mixture: ClassMixture

    def __call__(self, values: Tensor) -> Tensor:
        return values if self.mixture.phase in ("noise", "finetune") else self.forward(values)


def _embeddings(model: nn.Module, workload: Workload, keys: NoiseKeys) -> dict[str, WeightQuantizer]:
    """Look-up tables at 8 bits, weight-only: one step per row. A table that another layer shares stays as it is."""
    found = {}
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for node in workload.nodes:
        module: Any = model.get_submodule(node.module) if node.op == "embedding" and node.module else None
        if isinstance(module, nn.Embedding) and uses[id(module.weight)] == 1:
            palette = Palette(levels=(Level(weight_bits=8, activation_bits=FLOAT_BITS),), source="pinned")
            mixture = ClassMixture(palette, module.embedding_dim, signed=True)
            found[node.name] = WeightQuantizer(mixture, module.weight, 1, keys)
            parametrize.register_parametrization(module, "weight", found[node.name])
    return found


def palette_of(tensor_class: TensorClass, palette: Palette) -> Palette:
    """The palette of a class: its pinned level alone, or the candidate's."""
    level = tensor_class.pinned_level
    return palette if level is None else Palette(levels=(level,), source="pinned")


def _attach(module: nn.Module, activation: ActivationQuantizer | None, weight: WeightQuantizer) -> None:
    parametrize.register_parametrization(module, "weight", weight)
    if activation is None:
        return
    padding = getattr(module, "padding", (0, 0))
    pads_nonzero = any(grid.integer(grid.zero_code) for grid in activation.mixture.activation_grids)
    border = None
    if isinstance(module, nn.Conv2d) and any(padding) and pads_nonzero:
        module.padding = (0, 0)  # padded below with the code that the kernels pad with
        border = (int(padding[1]), int(padding[1]), int(padding[0]), int(padding[0]))
    contexts: list[AbstractContextManager[object]] = []
    activation.readers += 1

    def before(_: nn.Module, inputs: Any) -> Any:
        values = activation(inputs[0])
        if border is not None:
            values = _padded(values, border, activation)
        contexts.append(activation.remade())
        contexts[-1].__enter__()
        return (values, *inputs[1:])

    def after(*_: Any) -> None:
        if contexts:  # else the quantizer itself failed
            contexts.pop().__exit__(None, None, None)
        activation.release()

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _padded(values: Tensor, border: tuple[int, ...], activation: ActivationQuantizer) -> Tensor:
    padded = nn.functional.pad(values, border)
    if activation.mixture.phase in ("float", "calibrate"):
        return padded
    around = nn.functional.pad(torch.zeros_like(values[:1, :1]), border, value=1.0)
    return padded + around * activation.zero_values().view(1, -1, 1, 1)


def _matmul_nodes(workload: Workload, floating: set[str]) -> list[Node]:
    nodes = [node for node in workload.nodes if node.layer is not None and node.name not in floating]
    modules = Counter(node.module for node in nodes)
    for node in nodes:
        if not node.module:
            raise UserError(f"layer {node.name}: expected a torch.nn.Conv2d or Linear module, got a function call")
        if modules[node.module] > 1:
            raise UserError(f"layer {node.module}: expected one call per forward pass, got {modules[node.module]}")
    return nodes


def _module_of(model: nn.Module, node: Node) -> Any:
    module = model.get_submodule(node.module)
    if not isinstance(module, nn.Conv2d | nn.Linear):
        raise UserError(f"layer {node.module}: expected a torch.nn.Conv2d or Linear, got {type(module).__name__}")
    if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or module.padding_mode != "zeros"):
        raise UserError(
            f"layer {node.module}: expected zero padding given as numbers, got {module.padding!r} "
            f"of mode {module.padding_mode}"
        )
    return module


def _class_of(workload: Workload, node: Node) -> TensorClass:
    tensor_class = workload.class_of(node.inputs[0])
    if tensor_class is None:
        raise UserError(f"layer {node.module}: expected its input {node.inputs[0]} in a tensor class, got none")
    return tensor_class


def _class_size(workload: Workload, tensor_class: TensorClass) -> ClassSize:
    readers = [node for node in workload.nodes if node.name in tensor_class.consumers]
    n_weights = sum(node.layer.n_weights for node in readers if node.layer is not None)
    return ClassSize(tensor_class.name, tensor_class.channels, n_weights / tensor_class.channels)


def _refuse_unsupported(workload: Workload) -> None:
    if workload.unsupported:
        computes = [part for part in workload.unsupported if part.op not in MOVES]
        first, more = [*computes, *workload.unsupported][0], len(workload.unsupported) - 1
        rest = f" (and {more} more)" if more else ""
        raise UserError(
            f"model {workload.name}: expected operators that the integer network has, "
            f"got {first.op} at {first.node}: {first.reason}{rest}"
        )


def _refuse_weight_only(palette: Palette) -> None:
    for level in palette.levels:
        if level.is_weight_only:
            raise UserError(
                f"palette {palette.name}: expected levels with activation bits, got the weight-only level {level.name}"
                f"; nearest valid choice: {level.name}a8"
            )


def _refuse_weight_only_windows(workload: Workload) -> None:
    for tensor_class in workload.tensor_classes:
        level = tensor_class.pinned_level
        if level is None or not level.is_weight_only:
            continue
        for reader in tensor_class.consumers:
            if workload.node(reader).op != "linear" or level.weight_bits not in WEIGHT_ONLY_BITS:
                raise UserError(
                    f"pin {workload.node(reader).module}: expected a level with activation bits, or w2, w4 or w8 for a "
                    f"linear layer, got {level.name} for {workload.node(reader).op}"
                )
