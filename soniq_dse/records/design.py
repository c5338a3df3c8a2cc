"""A design: what was asked for (Candidate), which channel has which bits (Assignment), what training made of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from soniq_dse.records.base import ArrayRef, Record
from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.records.palette import Level, Palette
from soniq_dse.records.workload import Segment

FIRST_SETTINGS = ("baseline_epochs", "noise_epochs", "finetune_epochs", "batch_size", "learning_rate")
"""Of ``Schedule``: what every serialised one holds."""


class Schedule(Record):
    """How long each part trains, and how; epochs are passes over the training split.

    Why each default is what it is: docs/training.md.
    """

    baseline_epochs: PositiveInt
    noise_epochs: PositiveInt
    finetune_epochs: PositiveInt
    batch_size: PositiveInt = 64
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    augment: Literal["none", "shift", "shift_flip"] = "none"
    """What is done to every image of a batch, of the FP32 network's too: see ``qat/augment.py``."""
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the loss that compares with the FP32 network's outputs; classifiers only."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of the outputs that are compared."""
    warm_start: bool = True
    """Whether a design begins with the weights of the FP32 network."""
    noise: Literal["uniform", "measured"] = "uniform"
    """Size of phase 1's noise: half a step, uniform, or with the rms error that rounding has on calibration data."""
    noise_ramp: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of phase 1 in which the noise grows from nothing to its size."""
    learned_steps: bool = True
    """Whether the quantizers' steps are trained."""
    clipped_gradient: bool = True
    """Whether phase 2's straight-through gradient ends at the lowest and the top code."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the running average of phase 2's weights, which is what is deployed; 0: the last weights are."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out where they say nothing: results keep their keys."""
        plain: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {k: v for k, v in plain.items() if k in FIRST_SETTINGS or v != fields[k].default}

    @property
    def of_baseline(self) -> Schedule:
        """As far as the FP32 network depends on it: everything else at its default."""
        shared = {name: getattr(self, name) for name in FIRST_SETTINGS}
        return Schedule(**shared, augment=self.augment)


Granularity = Literal["class", "free", "layer"]
"""Every channel of a tensor class has a level of its own; or every channel of every tensor that layers read; or all
that a layer reads has one."""
LATER_DEFAULTS: dict[str, Any] = {"costs": None, "first_last": None, "granularity": "class", "pins": {}}
"""Of ``Candidate``: fields that came later, and what stands for nothing."""


class Candidate(Record):
    """A design to be trained: everything that decides its result besides the code.

    ``budget_bits`` is the most that the average weight may take over the quantised, unpinned weights;
    None for a palette of one level, and where ``costs`` hold a budget in another unit.
    """

    model: str
    data: str
    data_sha256: str
    palette: Palette
    budget_bits: Annotated[float, Field(gt=0)] | None = None
    allocator: str = "soniq"
    seed: int = 0
    schedule: Schedule
    k_group: PositiveInt = 1
    """Channels of a level come in multiples of this, but for one group that the budget cuts."""
    torch_threads: PositiveInt = 1
    costs: ChannelCosts | None = None
    pins: dict[str, Level] = {}
    """Module path -> level of what it reads, whatever the palette."""
    first_last: Level | Literal["free"] | None = None
    """Level of what the first and the last layers read: 8 bits (None), another, or that of the palette."""

    granularity: Granularity = "class"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out where they say nothing: a candidate keeps the key of its result."""
        plain: dict[str, Any] = handler(self)
        return {k: v for k, v in plain.items() if k not in LATER_DEFAULTS or v != LATER_DEFAULTS[k]}

    def __hash__(self) -> int:
        return hash((self.model, self.palette, self.budget_bits, self.allocator, self.seed, self.schedule))

    @property
    def asked(self) -> str:
        """The palette with its budget, as the user asks for it: ``w1a1+w4a4@2``, ``w1a1+w4a4@30us``."""
        if self.costs is not None:
            return f"{self.palette.name}@{self.costs.budget_text}"
        return self.palette.name + ("" if self.budget_bits is None else f"@{self.budget_bits:g}")

    @property
    def name(self) -> str:
        """Readable: ``w1a1+w4a4@2-soniq-s0``, of a model at half width ``w1a1+w4a4@2-x0.5-soniq-s0``."""
        width = self.model.partition("@")[2]
        return f"{self.asked}{width and '-x'}{width}-{self.allocator}-s{self.seed}"


class Assignment(Record):
    """Level of every channel of every tensor class, as indices into ``palette.levels``.

    Pinned classes (first and last layer) hold their own one-level palette in ``pinned``. ``bits_per_weight`` is the
    average over the quantised weights that are not pinned; ``bits_per_weight_all`` counts every weight.
    """

    palette: Palette
    level_of_channel: dict[str, tuple[int, ...]]
    pinned: dict[str, Palette] = {}
    bits_per_weight: Annotated[float, Field(ge=0)]
    bits_per_weight_all: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _levels_exist(self) -> Assignment:
        for name, levels in self.level_of_channel.items():
            n_levels = len(self.palette_of(name).levels)
            if not levels or min(levels) < 0 or max(levels) >= n_levels:
                raise ValueError(f"level_of_channel.{name}: expected indices 0..{n_levels - 1}, one per channel")
        return self

    def palette_of(self, tensor_class: str) -> Palette:
        """The palette that the indices of a class count into."""
        return self.pinned.get(tensor_class, self.palette)

    def segments(self, tensor_class: str) -> tuple[Segment, ...]:
        """Channels per level of a class, in palette order, empty levels left out."""
        levels = self.level_of_channel[tensor_class]
        palette = self.palette_of(tensor_class).levels
        return tuple(
            Segment(weight_bits=level.weight_bits, activation_bits=level.activation_bits, channels=levels.count(index))
            for index, level in enumerate(palette)
            if levels.count(index)
        )


class EpochRecord(Record):
    """One epoch of training."""

    phase: Literal["baseline", "noise", "finetune"]
    epoch: int
    loss: float
    metric_val: float | None = None


class TrainedDesign(Record):
    """A trained design of one seed. The metrics are those of the integer network, evaluated by the golden arithmetic;
    ``metric_fake_quant_val`` is what training itself saw, kept so that their agreement can be shown.

    ``predictions_test`` is what the metric on the test set follows from: the network's outputs ``[n, classes]`` fp32,
    or what it generated, or where outputs are too large to keep a number per example ``[n]``.
    """

    candidate: Candidate
    assignment: Assignment
    network: IntegerNetwork
    arrays: tuple[ArrayRef, ...]
    metric_val: float
    metric_test: float
    metric_fake_quant_val: float
    predictions_test: ArrayRef
    size_bytes: int
    epochs: tuple[EpochRecord, ...]
    seconds: float


class TrainedBaseline(Record):
    """The FP32 reference of a seed: ``metric_*`` at equal epochs, and the weights every design starts from."""

    model: str
    data: str
    data_sha256: str
    seed: int
    schedule: Schedule
    metric_val: float
    metric_test: float
    state: tuple[tuple[str, ArrayRef], ...]
    size_bytes: int
    epochs: tuple[EpochRecord, ...]
    seconds: float


class RoundedStart(Record):
    """An FP32 warm start at the levels of a design, shared evenly and not trained: what a search knows beforehand.

    ``metric_val`` is of the fake-quantized model.
    """

    metric_val: float
    assignment: Assignment
