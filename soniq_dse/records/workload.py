"""Layers and the traced graph of a network. Lengths are in elements."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from soniq_dse.records.base import Record
from soniq_dse.records.palette import ActivationBits, Level, WeightBits

Pair = tuple[PositiveInt, PositiveInt]


class Segment(Record):
    """Input channels of a layer that share one level, contiguous along k."""

    weight_bits: WeightBits
    activation_bits: ActivationBits
    channels: PositiveInt

    @property
    def level(self) -> Level:
        """The level of every channel of this segment."""
        return Level(weight_bits=self.weight_bits, activation_bits=self.activation_bits)


class _MatmulLayer(Record):
    name: str
    segments: tuple[Segment, ...] = ()
    threads: PositiveInt = 1

    @property
    def segment_channels(self) -> int:
        """Input channels of one group."""
        raise NotImplementedError

    @property
    def n_groups(self) -> int:
        """Groups."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _segments_cover_input(self) -> Any:
        expected, got = self.segment_channels * self.n_groups, sum(segment.channels for segment in self.segments)
        if self.segments and got != expected:
            raise ValueError(f"segments of {self.name}: expected {expected} channels in all, got {got}")
        uneven = [segment.channels for segment in self.segments if segment.channels % self.n_groups]
        if uneven and self.segment_channels > 1:
            raise ValueError(
                f"segments of {self.name}: expected multiples of {self.n_groups} channels, a share for every group, "
                f"got {uneven[0]}"
            )
        return self


class GemmLayer(_MatmulLayer):
    """``y[m, n] = sum_k x[m, k] w[n, k]``: a linear layer over ``m`` rows."""

    op: Literal["gemm"] = "gemm"
    m: PositiveInt
    n: PositiveInt
    k: PositiveInt

    @property
    def segment_channels(self) -> int:
        """k."""
        return self.k

    @property
    def rows(self) -> int:
        """Rows of the output: m."""
        return self.m

    @property
    def out_channels(self) -> int:
        """Columns of the output: n."""
        return self.n

    @property
    def taps(self) -> int:
        """Kernel positions: 1."""
        return 1

    @property
    def n_groups(self) -> int:
        """Groups: 1."""
        return 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.m * self.n * self.k

    @property
    def n_weights(self) -> int:
        """Elements of the weight."""
        return self.n * self.k


class Conv2dLayer(_MatmulLayer):
    """A two-dimensional convolution. With groups, every group has the same share of every segment; where a group has
    one channel (depthwise), segments are of whole groups."""

    op: Literal["conv2d"] = "conv2d"
    batch: PositiveInt = 1
    in_channels: PositiveInt
    out_channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (0, 0)
    dilation: Pair = (1, 1)
    groups: PositiveInt = 1

    @field_validator("groups")
    @classmethod
    def _groups_divide_channels(cls, groups: int, fields: ValidationInfo) -> int:
        inputs, outputs = (fields.data.get(name, groups) for name in ("in_channels", "out_channels"))
        if inputs % groups or outputs % groups:
            raise ValueError(f"expected a divisor of {inputs} input and {outputs} output channels, got {groups}")
        return groups

    @model_validator(mode="after")
    def _shape_is_possible(self) -> Any:
        if min(self.out_size) < 1:
            raise ValueError(f"kernel of {self.name}: expected it to fit the padded input, got {self.kernel}")
        return self

    @property
    def segment_channels(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.groups

    @property
    def out_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        size = (self.height, self.width)
        out = [
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        ]
        return out[0], out[1]

    @property
    def rows(self) -> int:
        """Output pixels over the batch: the m of the implicit GEMM."""
        return self.batch * self.out_size[0] * self.out_size[1]

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def n_groups(self) -> int:
        """Groups."""
        return self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.n_weights

    @property
    def n_weights(self) -> int:
        """Elements of the weight."""
        return self.out_channels * self.segment_channels * self.taps


Layer = Annotated[Union[GemmLayer, Conv2dLayer], Field(discriminator="op")]
"""The JSON of a layer file (``crosscheck --layers``) is a list of these."""


class Node(Record):
    """One operator of the graph; its name is also the name of the tensor it makes.

    ``module`` is the dotted path of the torch module it came from ("" for a function); ``layer`` is set for
    convolutions and linear layers; ``attributes`` hold what the op needs (kernel, stride of a pool ...).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: str = ""
    layer: Layer | None = None
    attributes: dict[str, Any] = {}


class TensorClass(Record):
    """Tensors that share one channel order and, by default, one assignment.

    ``nonnegative``: every tensor that a consumer reads is at least 0 (a ReLU, a pool of one ...). ``pinned_bits``: 8
    where the class feeds the first, the last or a depthwise layer, and what was asked for instead (weight and
    activation bits where they differ). ``consumers`` are the quantised conv2d and linear nodes that read it.
    """

    name: str
    tensors: tuple[str, ...]
    channels: PositiveInt
    nonnegative: bool
    consumers: tuple[str, ...]
    pinned_bits: int | Pair | None = None

    @property
    def pinned_level(self) -> Level | None:
        """The one level of a pinned class; None where a palette decides."""
        if self.pinned_bits is None:
            return None
        weight, activation = (self.pinned_bits,) * 2 if isinstance(self.pinned_bits, int) else self.pinned_bits
        return Level.model_validate({"weight_bits": weight, "activation_bits": activation})


class Unsupported(Record):
    """A part of the network that stays in floating point, and why."""

    node: str
    op: str
    reason: str


class Workload(Record):
    """The whole graph of a network at one input shape (batch first), nodes in topological order."""

    name: str
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    tensor_classes: tuple[TensorClass, ...]
    task: str = ""
    unsupported: tuple[Unsupported, ...] = ()

    def node(self, name: str) -> Node:
        """The node called ``name``.

        Raises:
            KeyError: there is none.
        """
        return self._index[name]

    @property
    def _index(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def layers(self) -> tuple[GemmLayer | Conv2dLayer, ...]:
        """The matmul layers, in order."""
        return tuple(node.layer for node in self.nodes if node.layer is not None)

    def class_of(self, tensor: str) -> TensorClass | None:
        """The class that holds ``tensor``; None where none does (a tensor that nothing quantised reads)."""
        return next((c for c in self.tensor_classes if tensor in c.tensors), None)
