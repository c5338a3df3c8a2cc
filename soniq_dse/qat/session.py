"""SONIQ for people with a training loop of their own: ``soniq_dse.quantize``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import numpy.typing as npt
import torch
from torch import Tensor, nn

from soniq_dse import registry
from soniq_dse.errors import UserError, unknown_name
from soniq_dse.qat.allocators import Base, Levels, Problem
from soniq_dse.qat.apply import QuantizedModel, wrap
from soniq_dse.qat.deploy import deploy
from soniq_dse.qat.fake_quant import WeightQuantizer
from soniq_dse.qat.soft_assignment import SoftAssignment
from soniq_dse.qat.spending import within_budget
from soniq_dse.qat.training import STEP_LEARNING_RATE, WEIGHT_DECAY, parameter_groups
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.design import Assignment, Granularity
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import Unsupported
from soniq_dse.store import array_ref
from soniq_dse.workloads.pins import with_pins
from soniq_dse.workloads.trace import trace

_Named = TypeVar("_Named", Palette, Level)


def quantize(
    model: nn.Module,
    palette: Palette | str,
    example: Tensor,
    *,
    budget_bits: float | None = None,
    costs: ChannelCosts | None = None,
    cost_of: Callable[[Assignment], float] | None = None,
    allocator: str = "soniq",
    pins: Mapping[str, Level | str] | None = None,
    granularity: Granularity = "class",
    k_group: int = 1,
    seed: int = 0,
    name: str = "model",
) -> Session:
    """Wrap ``model`` in place for SONIQ's two phases; its classes stay what they are, and so does the training loop.

    Args:
        model: on any device. Every ``nn.Conv2d`` and ``nn.Linear`` is quantized, embeddings to 8 bits; all else stays
            in floating point and is listed in ``Session.unsupported``.
        palette: levels, as in ``"w2a2+w4a4"``.
        example: a batch of inputs, which also sets the activations' first steps; where none is negative, the input is
            taken to be so.
        budget_bits: the most that a weight may take on average, over weights that are not pinned.
        costs: in place of ``budget_bits``, a budget in bits, predicted latency or energy, with what a channel of every
            tensor class costs at each level.
        cost_of: what the network really takes with an assignment, in the unit of ``costs``: where levels are fixed,
            they are moved until that is within the budget.
        allocator: what assigns levels to channels; ``soniq`` learns it in phase 1.
        pins: module path -> level, as in ``{"head": "w8"}`` (weight-only); without, the first and last layer have w8a8.
        granularity: ``class`` gives every channel of a tensor class a level of its own, ``free`` every channel of every
            tensor that layers read, ``layer`` one level to all that a layer reads.
        k_group: the channels of a level come in multiples of this, the group of the kernels to be used.
        seed: of noise and random allocators.
        name: of the design.

    Raises:
        UserError: the model cannot be traced or is wrapped already, an argument is out of its range, a name is not
            known, or the budget cannot be met.
    """
    levels = _parsed(palette, Palette, "palette")
    _check_model(model, example)
    _check_numbers(budget_bits, k_group, seed, granularity)
    workload = trace(model, example, name=name, input_nonnegative=bool((example >= 0).all()))
    chosen: Base = registry.load("allocator", allocator)()
    if chosen.measured:
        raise UserError(f"allocator {allocator}: expected one that measures nothing, got one that needs training data")
    fixed = {module: _parsed(level, Level, f"pin {module}") for module, level in (pins or {}).items()}
    workload = with_pins(workload, fixed, granularity=granularity)
    request = Problem((), levels, budget_bits, k_group, seed, costs, whole=granularity == "layer")
    quantized = wrap(model, workload, request, name)
    if not quantized.weights:
        raise UserError("model: expected at least one nn.Conv2d, nn.Linear or nn.Embedding to quantize, got none")
    for parameter in model.parameters():  # quantizers are made on the CPU
        model.to(parameter.device)
        break
    training = model.training
    quantized.calibrate(example)
    model.train(training)
    return Session(quantized, chosen, cost_of)


class Session:
    """A model between its two phases: noise, until ``finetune`` is called, then rounding.

    The model does what its phase says whenever it runs; in phase 1 the loop must let ``attach`` see its optimizer.
    """

    def __init__(
        self, quantized: QuantizedModel, allocator: Base, cost_of: Callable[[Assignment], float] | None = None
    ) -> None:
        self._quantized, self._allocator, self._cost_of = quantized, allocator, cost_of
        self._levels: Levels | None = None
        self._soft: SoftAssignment | None = None
        self._noise_steps, self._steps = 1, 0
        problem = quantized.problem
        if allocator.learned and len(problem.palette.levels) > 1 and problem.classes:
            self._soft = SoftAssignment(quantized)
            quantized.model.register_forward_pre_hook(lambda *_: self._mix())
        else:
            self._levels = self._allocate()
            quantized.harden(self._levels)

    @property
    def model(self) -> nn.Module:
        """The wrapped model."""
        return self._quantized.model

    @property
    def phase(self) -> Literal["noise", "finetune"]:
        """What the model does now."""
        phases = {mixture.phase for mixture in self._quantized.mixtures.values()}
        return "finetune" if phases == {"finetune"} else "noise"

    @property
    def unsupported(self) -> tuple[Unsupported, ...]:
        """What stays in floating point, and why."""
        return self._quantized.workload.unsupported

    def parameter_groups(
        self,
        learning_rate: float,
        *,
        step_learning_rate: float = STEP_LEARNING_RATE,
        weight_decay: float = WEIGHT_DECAY,
    ) -> list[dict[str, Any]]:
        """For a torch optimizer: the model's own parameters, and the logarithms of the quantizers' steps."""
        quantized = self._quantized
        return parameter_groups(
            quantized.model_parameters(), learning_rate, quantized.log_steps(), step_learning_rate, weight_decay
        )

    def attach(self, optimizer: torch.optim.Optimizer, noise_steps: int) -> None:
        """Learn the levels with every step of ``optimizer``; phase 1 is to take ``noise_steps`` of them."""
        if noise_steps < 1:
            raise UserError(f"noise_steps: expected at least 1, got {noise_steps}")
        self._noise_steps = noise_steps
        optimizer.register_step_pre_hook(lambda *_: self._learn())

    def finetune(self) -> Assignment:
        """Begin phase 2: fix the level of every channel, and round."""
        if self._levels is None:
            self._levels = self._allocate()
        self._quantized.harden(self._levels)
        self._quantized.set_phase("finetune")
        return self.assignment()

    def assignment(self) -> Assignment:
        """The level of every channel.

        Raises:
            UserError: phase 1 is not over.
        """
        if self._levels is None:
            raise UserError("assignment: expected levels that are fixed, got phase 1; call finetune() first")
        return self._quantized.assignment(self._levels)

    def deploy(self) -> tuple[IntegerNetwork, dict[str, npt.NDArray[Any]]]:
        """The integer network and its arrays by hash: what ``formats.network.evaluate`` and the runtime take.

        Raises:
            UserError: phase 1 is not over, or the integer network lacks an operator.
        """
        self.assignment()
        arrays: dict[str, npt.NDArray[Any]] = {}

        def put(array: npt.NDArray[Any]) -> ArrayRef:
            ref = array_ref(array)
            arrays[ref.sha256] = array
            return ref

        return deploy(self._quantized, put), arrays

    def state_dict(self) -> dict[str, Any]:
        """What the model's and the optimizer's ``state_dict`` do not hold: numbers and tensors."""
        return {
            "phase": self.phase,
            "steps": self._steps,
            "noise_step": self._quantized.keys.step,
            "velocity": {} if self._soft is None else {k: v.clone() for k, v in self._soft.velocity.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``, after the model has loaded its own.

        Raises:
            UserError: ``state`` is no such dictionary.
        """
        lacking = sorted(self.state_dict().keys() - state.keys())
        if lacking:
            raise UserError(f"state: expected what Session.state_dict() gave, got none of {', '.join(lacking)}")
        self._steps, self._quantized.keys.step = state["steps"], state["noise_step"]
        if self._soft is not None:
            self._soft.velocity.update({name: value.clone() for name, value in state["velocity"].items()})
        if state["phase"] == "finetune":
            mixtures, classes = self._quantized.mixtures, self._quantized.problem.classes
            self._levels = {c.name: tuple(mixtures[c.name].level.tolist()) for c in classes}
            self.finetune()

    def _allocate(self) -> Levels:
        logits = None if self._soft is None else self._soft.logits()
        problem = self._quantized.problem
        if len(problem.palette.levels) == 1:
            return {c.name: (0,) * c.channels for c in problem.classes}
        return within_budget(self._quantized, self._allocator, logits, self._cost_of)

    def _mix(self) -> None:
        if self._soft is not None and self.phase == "noise":
            self._soft.before_step(min(self._steps / self._noise_steps, 1.0))

    def _learn(self) -> None:
        if self.phase == "noise":
            self._steps += 1
            if self._soft is not None:
                self._soft.after_backward()


def _parsed(value: _Named | str, kind: type[_Named], what: str) -> _Named:
    if isinstance(value, kind):
        return value
    try:
        return kind.parse(str(value))
    except ValueError as error:
        raise UserError(f"{what}: {error}") from error


def _check_model(model: nn.Module, example: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, WeightQuantizer) for module in model.modules()):
        raise UserError("model: expected one that is not wrapped yet, got one that quantize() has wrapped before")
    if not isinstance(example, Tensor):
        raise UserError(f"example: expected a torch.Tensor, got {type(example).__name__}")
    if not example.ndim or not len(example):
        raise UserError(f"example: expected a batch of at least one input, got shape {list(example.shape)}")
    if not bool(example.isfinite().all()):
        raise UserError("example: expected finite inputs, got NaN or infinity")


def _check_numbers(budget_bits: float | None, k_group: int, seed: int, granularity: str) -> None:
    if budget_bits is not None and not math.isfinite(budget_bits):
        raise UserError(f"budget_bits: expected a finite number, got {budget_bits}")
    for name, number, least in (("k_group", k_group, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or number < least:
            raise UserError(f"{name}: expected a whole number of at least {least}, got {number!r}")
    if granularity not in get_args(Granularity):
        raise unknown_name("granularity", granularity, get_args(Granularity))
