"""What a model is trained on and judged by: data in memory, loss, metric.

Free of torch until a batch or a loss is asked for, so that a packed network can be run on the test data without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from soniq_dse.errors import UserError, unknown_name

if TYPE_CHECKING:
    import torch

Array: TypeAlias = npt.NDArray[Any]
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Examples in memory: ``inputs`` fp32 ``[n, ...]`` (images: channels, height, width) or token numbers int64,
    ``targets`` ``[n, ...]``.

    Raises:
        UserError: another dtype, another length, no example, or a number that is not finite.
    """

    inputs: Array
    targets: Array

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray):
                raise UserError(f"split: expected {name} as a NumPy array, got {type(value).__name__}")
            frozen = np.ascontiguousarray(value).view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        if self.inputs.dtype not in (np.float32, np.int64):
            raise UserError(f"split: expected inputs of dtype float32 (or int64: tokens), got {self.inputs.dtype}")
        if len(self.inputs) != len(self.targets) or not len(self.inputs):
            raise UserError(
                f"split: expected as many targets as inputs, at least one, got {len(self.inputs)} inputs and "
                f"{len(self.targets)} targets"
            )
        if not np.isfinite(self.inputs).all():
            raise UserError("split: expected finite inputs, got NaN or infinity")

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)

    def take(self, indices: Array) -> Split:
        """The examples at ``indices``, in that order."""
        return Split(self.inputs[indices], self.targets[indices])


def top1_percent(outputs: Array, targets: Array) -> float:
    """Percent of rows of ``outputs`` ``[n, classes]`` whose largest entry (the first of equals) is the target."""
    return 100.0 * float(np.mean(np.argmax(outputs, axis=1) == targets))


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats of logits ``[n, classes]`` against class numbers ``[n]``."""
    import torch

    loss: torch.Tensor = torch.nn.functional.cross_entropy(outputs, targets)
    return loss


def token_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats of logits ``[n, length, tokens]`` against the last ``length`` token numbers of each
    row of ``targets``."""
    return cross_entropy(outputs.flatten(0, 1), targets[:, -outputs.shape[1] :].flatten())


def padded_token_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As ``token_cross_entropy``, over the targets other than 0, the padding."""
    import torch

    wanted = targets[:, -outputs.shape[1] :].flatten()
    loss: torch.Tensor = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), wanted, ignore_index=0)
    return loss


def token_nats(outputs: Array, targets: Array) -> Array:
    """Mean cross entropy in nats of each example: ``[n]`` in float64."""
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    nats: Array = (np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64)) - chosen).mean(axis=-1)
    return nats


def perplexity(outputs: Array, targets: Array) -> float:
    """Exponential of the mean cross entropy per token, over examples of equal length."""
    return float(np.exp(token_nats(outputs, targets).mean()))


@dataclass(frozen=True)
class Metric:
    """How outputs are judged.

    ``compute`` takes the outputs of a whole split and its targets; ``direction`` says where better is: accuracy and
    BLEU up, perplexity down. ``per_example`` gives ``[n]`` numbers whose mean, put through ``finish``, is the metric:
    so that outputs too large for memory can be judged batch by batch. ``generate`` makes what ``compute`` takes where
    that is no output of one pass, but made token by token: it takes the network and the inputs. ``signature`` says in
    full how the number is made, to be quoted beside it.
    """

    name: str
    unit: str
    direction: Literal["up", "down"]
    compute: Callable[[Array, Array], float]
    per_example: Callable[[Array, Array], Array] | None = None
    finish: Callable[[float], float] = float
    generate: Callable[[Callable[[Array], Array], Array], Array] | None = None
    signature: str = ""

    def of(self, network: Callable[[Array], Array], data: Split, batch: int) -> float:
        """The metric of ``network`` (inputs -> outputs) on ``data``."""
        return self.judged(network, data, batch)[0]

    def judged(self, network: Callable[[Array], Array], data: Split, batch: int) -> tuple[float, Array]:
        """(metric, what it follows from): all outputs, or what was generated, or a number per example."""
        if self.per_example is None or self.generate is not None:
            found = network(data.inputs) if self.generate is None else self.generate(network, data.inputs)
            return float(self.compute(found, data.targets)), found
        starts = range(0, len(data), batch)
        each = [self.per_example(network(data.inputs[i : i + batch]), data.targets[i : i + batch]) for i in starts]
        numbers = np.concatenate(each)
        return self.finish(float(numbers.mean())), numbers

    def better(self, left: float, right: float) -> bool:
        """Whether ``left`` is strictly better than ``right``."""
        return left > right if self.direction == "up" else left < right


ACCURACY = Metric("accuracy", "%", "up", top1_percent)
PERPLEXITY = Metric("perplexity", "", "down", perplexity, token_nats, lambda nats: float(np.exp(nats)))


@dataclass(frozen=True)
class Text:
    """Text as token numbers and back. Where a text is translated, ``begin`` is the token that a translation begins
    behind and ``end`` the one that ends it."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    begin: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Task:
    """Data, loss and metric. Validation chooses; test is shown once.

    ``n_classes`` is None where the task is no classification; ``loss`` takes (outputs, targets) and gives a scalar;
    ``text`` is what token numbers stand for, if they do.

    Raises:
        UserError: the splits differ in the shape of an input, or a class number is out of range.
    """

    name: str
    train: Split
    val: Split
    test: Split
    n_classes: int | None = None
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = field(default=cross_entropy)
    metric: Metric = ACCURACY
    text: Text | None = None

    def __post_init__(self) -> None:
        for name in SPLITS:
            split = self.split(name)
            if not isinstance(split, Split):
                raise UserError(f"task {self.name}: expected {name} to be a Split, got {type(split).__name__}")
            if split.inputs.shape[1:] != self.train.inputs.shape[1:]:
                raise UserError(
                    f"task {self.name}: expected {name} inputs of shape {list(self.input_shape)} as in train, "
                    f"got {list(split.inputs.shape[1:])}"
                )
            if self.n_classes is not None:
                check_classes(f"task {self.name}, {name}", split.targets, self.n_classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return tuple(self.train.inputs.shape[1:])

    @cached_property
    def input_nonnegative(self) -> bool:
        """Whether no training input is below zero: the input tensor then takes unsigned codes."""
        return bool(self.train.inputs.min() >= 0)

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 over split, role, dtype, shape and bytes of every array: equal data, split alike, give equal text."""
        digest = hashlib.sha256()
        for name in SPLITS:
            for role in ("inputs", "targets"):
                array: Array = getattr(self.split(name), role)
                digest.update(f"{name}.{role}:{array.dtype.str}:{list(array.shape)};".encode())
                digest.update(array.data)
        return digest.hexdigest()

    def example(self, batch: int) -> torch.Tensor:
        """Zeros of the shape and type of ``batch`` inputs."""
        import torch

        return torch.from_numpy(np.zeros((batch, *self.input_shape), self.train.inputs.dtype))

    def split(self, name: str) -> Split:
        """Split ``train``, ``val`` or ``test``.

        Raises:
            UserError: another name.
        """
        if name not in SPLITS:
            raise unknown_name(f"task {self.name}: split", name, SPLITS)
        split: Split = getattr(self, name)
        return split

    def batches(
        self, split: str, batch_size: int, seed: int | None = None, epoch: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs (inputs, targets) of torch tensors, each a copy.

        With a ``seed`` (training): the order depends on (seed, epoch, length) alone, never on a global generator, and a
        short last batch is left out unless it is the only one (BatchNorm needs more than one example). Without
        (evaluation): everything, in order.
        """
        import torch

        data = self.split(split)
        order = np.arange(len(data)) if seed is None else shuffled(len(data), seed, epoch)
        stop = len(data) if seed is None or len(data) < batch_size else len(data) - len(data) % batch_size
        for start in range(0, stop, batch_size):
            chosen = order[start : min(start + batch_size, stop)]
            yield torch.from_numpy(data.inputs[chosen]), torch.from_numpy(data.targets[chosen])

    def limited(self, limit: int | None) -> Task:
        """At most ``limit`` examples in each split, classes in proportion; for short runs. None: all.

        Raises:
            UserError: ``limit`` is below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise UserError(f"task {self.name}: expected a limit of at least 1 example per split, got {limit}")
        shorter: dict[str, Any] = {
            name: self.split(name).take(np.sort(stratified_order(self.split(name).targets)[:limit]))
            for name in SPLITS
            if len(self.split(name)) > limit
        }
        return replace(self, name=f"{self.name}[:{limit}]", **shorter) if shorter else self


def at_full_length(network: Callable[[Array], Array], length: int) -> Callable[[Array], Array]:
    """``network`` of ``length`` tokens, fit to be asked for fewer: they are padded behind, and the outputs cut.

    So a causal network of one shape generates token by token.
    """

    def ask(inputs: Array) -> Array:
        missing = length - inputs.shape[1]
        if missing <= 0:
            return network(inputs)
        outputs = network(np.pad(inputs, ((0, 0), (0, missing))))
        return outputs[:, : outputs.shape[1] - missing]

    return ask


def shuffled(length: int, *key: int) -> Array:
    """A permutation of ``range(length)`` that depends on ``length`` and ``key`` (numbers >= 0) alone.

    Sorts raw PCG64 words: NumPy keeps bit generators stable over its versions, but not ``Generator.permutation``.
    """
    words = np.random.PCG64(np.random.SeedSequence([*key])).random_raw(length)
    return np.argsort(words, kind="stable")


def stratified_order(targets: Array, seed: int = 0) -> Array:
    """A shuffle of the examples of which every prefix holds the classes in proportion (to within one each).

    Targets that are no class numbers (``[n]`` integers) are shuffled without regard to them.
    """
    order = shuffled(len(targets), seed)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        return order
    classes, inverse, counts = np.unique(targets[order], return_inverse=True, return_counts=True)
    place = np.empty(len(targets))
    for index in range(len(classes)):
        place[inverse == index] = (np.arange(counts[index]) + 0.5) / counts[index]
    return order[np.argsort(place, kind="stable")]


def carve(data: Split, n_held: int, seed: int = 0) -> tuple[Split, Split]:
    """(rest, held): ``n_held`` examples held out, classes in proportion, both in the order of ``data``.

    Raises:
        UserError: nothing would be left on one side.
    """
    if not 0 < n_held < len(data):
        raise UserError(f"split: expected to hold out between 1 and {len(data) - 1} examples, got {n_held}")
    order = stratified_order(data.targets, seed)
    return data.take(np.sort(order[n_held:])), data.take(np.sort(order[:n_held]))


def check_classes(where: str, targets: Array, n_classes: int) -> None:
    """Raises UserError unless ``targets`` are class numbers ``[n]`` below ``n_classes``."""
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"{where}: expected class numbers as integers [n], got {targets.dtype} {list(targets.shape)}")
    if targets.min() < 0 or targets.max() >= n_classes:
        raise UserError(
            f"{where}: expected class numbers 0..{n_classes - 1}, got {int(targets.min())}..{int(targets.max())}"
        )
