"""A trained network in integers: what deployment computes, free of any framework.

Its arrays travel beside it, as a mapping from ``ArrayRef.sha256`` to the array. Semantics of every op: see
``formats/network.py``, the golden evaluation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from soniq_dse.records.base import ArrayRef, Record
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Pair, Segment


class TensorQuantizer(Record):
    """How one tensor becomes codes: a palette level per channel and a step per level.

    With p the activation bits of a level and c = 2**p - 1, a code u in 0..c stands for ``step * u`` (unsigned),
    ``step * (2u - c)`` (zero-free, p < 8) or ``step * (u - 128)`` (int8). ``steps`` are exact fp32 values.
    ``level_of_channel`` counts into ``palette.levels``. Channels stay in the order of the trained model; the runtime
    permutes them into segments.
    """

    palette: Palette
    level_of_channel: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    steps: tuple[float, ...]
    signed: bool

    @model_validator(mode="after")
    def _consistent(self) -> TensorQuantizer:
        n_levels = len(self.palette.levels)
        if len(self.steps) != n_levels:
            raise ValueError(f"steps: expected one per level ({n_levels}), got {len(self.steps)}")
        if max(self.level_of_channel) >= n_levels:
            raise ValueError(f"level_of_channel: expected indices below {n_levels}, got {max(self.level_of_channel)}")
        if min(self.steps) <= 0:
            raise ValueError(f"steps: expected positive numbers, got {min(self.steps)}")
        return self

    @property
    def channel_order(self) -> tuple[int, ...]:
        """Channels sorted by level, stable: position in the deployed tensor -> channel of the trained model."""
        return tuple(sorted(range(len(self.level_of_channel)), key=self.level_of_channel.__getitem__))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The contiguous blocks of equal level in ``channel_order``; empty levels are left out."""
        counts = [self.level_of_channel.count(index) for index in range(len(self.palette.levels))]
        return tuple(
            Segment(weight_bits=level.weight_bits, activation_bits=level.activation_bits, channels=count)
            for level, count in zip(self.palette.levels, counts, strict=True)
            if count
        )


Padding = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class _NetworkNode(Record):
    name: str
    inputs: Annotated[tuple[str, ...], Field(max_length=4)] = ()
    shape: tuple[int, ...]
    """Output shape without the batch axis, as in the trained model: ``[channels]``, ``[channels, height, width]`` or
    ``[tokens, channels]``; of token numbers ``[tokens]``."""

    @property
    def refs(self) -> dict[str, ArrayRef]:
        """The node's arrays by field."""
        return {name: value for name, value in self if isinstance(value, ArrayRef)}


class InputNode(_NetworkNode):
    """The input: fp32, or token numbers below ``n_tokens``."""

    op: Literal["input"] = "input"
    n_tokens: Annotated[int, Field(gt=0, lt=2**31)] | None = None


class SliceNode(_NetworkNode):
    """Token numbers ``start`` to ``stop`` (excluded) of each sample."""

    op: Literal["slice"] = "slice"
    start: Annotated[int, Field(ge=0)]
    stop: PositiveInt


class EmbeddingNode(_NetworkNode):
    """Token numbers -> fp32 ``[tokens, channels]``: row ``t`` of ``table`` (int8 ``[n_tokens, channels]``) times
    ``scale[t]`` (fp32)."""

    op: Literal["embedding"] = "embedding"
    table: ArrayRef
    scale: ArrayRef


class QuantizeNode(_NetworkNode):
    """fp32 -> codes (uint8)."""

    op: Literal["quantize"] = "quantize"
    quantizer: TensorQuantizer


class _MatmulNode(_NetworkNode):
    """Reads codes of a quantize node, gives fp32.

    ``weight`` holds integers (int8): zero-free levels odd in -(2**p - 1)..2**p - 1, 8 bits in -127..127. ``scale`` is
    fp32 ``[n_levels, out_channels]``: weight step x activation step x folded BatchNorm gain; ``bias`` fp32
    ``[out_channels]``.
    """

    weight: ArrayRef
    scale: ArrayRef
    bias: ArrayRef

    @model_validator(mode="after")
    def _as_many_outputs_as_weights(self) -> _MatmulNode:
        channels = self.shape[1:] if len(self.shape) == 2 else self.shape[:1]
        if channels != self.weight.shape[:1]:
            raise ValueError(f"node {self.name}: expected {self.weight.shape[:1]} outputs, got {channels}")
        return self


class Conv2dNode(_MatmulNode):
    """Weight ``[out_channels, in_channels / groups, kernel_height, kernel_width]``. Padding: the code nearest to zero
    from above (exact zero for unsigned and int8 activations, ``+step`` for zero-free ones)."""

    op: Literal["conv2d"] = "conv2d"
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: PositiveInt = 1


class LinearNode(_MatmulNode):
    """Weight ``[out_features, in_features]``; of ``[tokens, channels]`` every token is a row."""

    op: Literal["linear"] = "linear"


class WeightOnlyNode(_MatmulNode):
    """A linear layer that reads fp32: weight int8 ``[out_features, in_features]`` as of other layers, all of ``bits``;
    ``scale`` is fp32 ``[out_features]``. See ``formats/weight_only.py``."""

    op: Literal["weight_only"] = "weight_only"
    bits: Literal[2, 4, 8]


class ReluNode(_NetworkNode):
    """``max(x, 0)``."""

    op: Literal["relu"] = "relu"


class ClipNode(_NetworkNode):
    """``min(max(x, 0), most)``: ReLU6 and its like; ``most`` is an exact fp32 value."""

    op: Literal["clip"] = "clip"
    most: Annotated[float, Field(gt=0)]


class GeluNode(_NetworkNode):
    """GELU of fp32, exact or in the form that approximates by tanh. See ``formats/activations.py``."""

    op: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = "none"


class AddNode(_NetworkNode):
    """Sum of two fp32 tensors, first input first."""

    op: Literal["add"] = "add"


class AddConstantNode(_NetworkNode):
    """Sum of an fp32 tensor and ``constant`` (fp32, of its shape): places of tokens."""

    op: Literal["add_constant"] = "add_constant"
    constant: ArrayRef


class LayerNormNode(_NetworkNode):
    """fp32 over the channels of each token: ``gain`` and ``bias`` fp32 ``[channels]``, ``eps`` an exact fp32 value.

    See ``formats/normalisation.py``.
    """

    op: Literal["layer_norm"] = "layer_norm"
    gain: ArrayRef
    bias: ArrayRef
    eps: Annotated[float, Field(gt=0)]


class AttentionNode(_NetworkNode):
    """Scaled dot-product attention, fp32: query ``[tokens, channels]``, key and value ``[others, channels]``, and where
    some of the others are hidden their token numbers ``[others]``.

    Head h has the channels ``h * channels / heads`` and on. ``scale`` multiplies the scores; ``hidden`` is then added
    to those of the token number ``hidden_token``; both are exact fp32 values. See ``formats/attention.py``.
    """

    op: Literal["attention"] = "attention"
    heads: PositiveInt
    causal: bool = False
    scale: float
    hidden: float = 0.0
    hidden_token: Annotated[int, Field(ge=0)] = 0


class TokensNode(_NetworkNode):
    """``[channels, height, width]`` -> ``[height * width, channels]``: a pixel is a token."""

    op: Literal["tokens"] = "tokens"


class PrependNode(_NetworkNode):
    """``[tokens, channels]`` behind ``rows`` (fp32 ``[more, channels]``): a class token."""

    op: Literal["prepend"] = "prepend"
    rows: ArrayRef


class TokenNode(_NetworkNode):
    """``[tokens, channels]`` -> ``[channels]``: the token at ``index``."""

    op: Literal["token"] = "token"
    index: Annotated[int, Field(ge=0)]


class MeanTokensNode(_NetworkNode):
    """``[tokens, channels]`` -> ``[channels]``: summed in fp32 in their order, then times fp32(1 / tokens)."""

    op: Literal["mean_tokens"] = "mean_tokens"


class PoolNode(_NetworkNode):
    """Max or average pool of an fp32 tensor (or max pool of codes: the same result). No ceil mode.

    Averages are summed in fp32 in row-major window order, then multiplied by fp32(1 / window size). A padded maximum is
    over what of its window lies inside; every window has such a part, and averages are not padded.
    """

    op: Literal["max_pool2d", "avg_pool2d"]
    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0)

    @model_validator(mode="after")
    def _windows_reach_inside(self) -> PoolNode:
        most = [extent // 2 if self.op == "max_pool2d" else 0 for extent in self.kernel]
        if any(self.padding[i] > most[i] for i in (0, 1)):
            raise ValueError(f"{self.op} {self.name}: expected a padding of at most {most}, got {list(self.padding)}")
        return self

    @model_serializer(mode="wrap")
    def _without_padding(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The field came later: files and results without it stay what they are."""
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if key != "padding" or any(value)}


class FlattenNode(_NetworkNode):
    """``[channels, height, width]`` -> ``[channels * height * width]`` in the trained model's (channels first)
    order."""

    op: Literal["flatten"] = "flatten"


NetworkNode = Annotated[
    InputNode
    | SliceNode
    | EmbeddingNode
    | QuantizeNode
    | Conv2dNode
    | LinearNode
    | WeightOnlyNode
    | ReluNode
    | ClipNode
    | GeluNode
    | AddNode
    | AddConstantNode
    | LayerNormNode
    | AttentionNode
    | TokensNode
    | PrependNode
    | TokenNode
    | MeanTokensNode
    | PoolNode
    | FlattenNode,
    Field(discriminator="op"),
]


class IntegerNetwork(Record):
    """Nodes in topological order; the first is the input, the last the output (fp32)."""

    name: str
    nodes: Annotated[tuple[NetworkNode, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _topological(self) -> IntegerNetwork:
        seen: set[str] = set()
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in seen]
            if missing:
                raise ValueError(f"node {node.name}: expected inputs among earlier nodes, got {missing[0]!r}")
            if node.name in seen:
                raise ValueError(f"node {node.name}: expected a name of its own, got one that is taken")
            seen.add(node.name)
        return self
