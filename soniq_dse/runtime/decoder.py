"""Token by token through a packed network: a prompt at once, then one token a step over kept keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import UserError
from soniq_dse.kernels.library import round_up
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.choice import PartShape
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.runtime.executor import Executor, Team, driver_flags, load_drivers, zeros
from soniq_dse.runtime.latency import StepTime, step_times
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
from soniq_dse.runtime.plan import POSITION, SOURCE, Plan
from soniq_dse.runtime.planner import network_windows, plan_part
from soniq_dse.runtime.stepwise import KeptAttentionNode, Stepwise, stepwise

PROMPT_ROWS = 64
"""Tokens of a prompt that are done together: enough that each weight is read once for many."""
WARM_RUNS = 30
"""Before a part is timed: the first bring weights, keys and values into cache."""
FEWEST_ROWS = 8
"""Fewer than so many are done one by one."""
Tokens = NDArray[Any]
Run = Callable[[Tokens], NDArray[np.float32]]


@dataclass(frozen=True)
class TimedPart:
    """A part of a decoder as it ran; ``kept``: attention -> the tokens before that it finds in its cache."""

    network: IntegerNetwork
    plan: Plan
    steps: tuple[StepTime, ...]
    kept: dict[str, int]

    @property
    def shapes(self) -> tuple[PartShape, ...]:
        """Of the parts of all its layers."""
        return tuple(shape for layer in self.plan.layers for shape in layer.shapes)


class Decoder:
    """Sequences side by side, each continued token by token; the logits are those of a run of the whole sequence, bit
    for bit. It serves one caller at a time.

    Args:
        packed: reads token numbers and gives a row of logits for each, or for each of the last (the target's, behind a
            source's).
        batch: sequences.

    Raises:
        UserError: the network is no such one.
        MissingCapabilityError: there is no compiler.
    """

    def __init__(self, packed: PackedNetwork, *, batch: int = 1, threads: int = 1) -> None:
        self._packed, self._batch, self._threads = packed, batch, threads
        self._parts = _Parts(stepwise(packed.network))
        self._memory: dict[str, NDArray[np.uint8]] = {}
        self._team = Team(load_drivers(driver_flags(packed.features)), threads)
        self._encoder = self._executor(self._parts.encode)
        self._silent = self._executor(self._parts.prompt)
        step = self._executor(self._parts.step)
        assert step is not None
        self._step = step
        self._position = (
            self._memory[POSITION][:8].view(np.int64) if POSITION in self._memory else np.zeros(1, np.int64)
        )
        self._encoded = self._encoder is None

    @property
    def most(self) -> int:
        """Tokens of a sequence at most."""
        return self._parts.most

    @property
    def source_tokens(self) -> int:
        """Tokens of a source, behind which the sequence stands; 0 where there is none."""
        return self._parts.whole.start

    @property
    def position(self) -> int:
        """Tokens of each sequence so far."""
        return int(self._position[0])

    @property
    def memory_bytes(self) -> int:
        """Bytes of kept keys and values, and of all buffers."""
        executors = (self._encoder, self._silent, self._step)
        return sum(one.nbytes for one in self._memory.values()) + sum(one.memory_bytes for one in executors if one)

    @property
    def step(self) -> Executor:
        """What runs for one token of each sequence."""
        return self._step

    def begin(self, source: Tokens | None = None) -> None:
        """Start anew, behind ``source`` ``[batch, source tokens]`` where the network has one.

        Raises:
            UserError: another shape, or no token numbers.
        """
        self._position[0] = 0
        if self._encoder is None:
            return
        expected = (self._batch, self.source_tokens)
        if source is None or source.shape != expected:
            got = "none" if source is None else f"{list(source.shape)}"
            raise UserError(f"source: expected token numbers {list(expected)}, got {got}")
        self._encoder.set_input(np.pad(source, ((0, 0), (0, self.most))))
        self._encoder.run_again()
        self._encoded = True

    def read(self, tokens: Tokens) -> NDArray[np.float32]:
        """Continue the sequences by ``tokens`` ``[batch, n]``; the logits ``[batch, n_tokens]`` behind the last.

        Raises:
            UserError: another shape, no token numbers, more than ``most`` together, or the source is missing.
        """
        if not self._encoded:
            raise UserError("source: expected begin(source) before the first token")
        if tokens.ndim != 2 or len(tokens) != self._batch or not tokens.shape[1]:
            raise UserError(f"tokens: expected [{self._batch}, n] with n >= 1, got {list(tokens.shape)}")
        if self.position + tokens.shape[1] > self.most:
            total = f"{self.position} + {tokens.shape[1]}"
            raise UserError(f"tokens: expected {self.most} of a sequence at most, got {total}")
        self._read_silently(tokens[:, :-1])
        return self._one(tokens[:, -1:])

    def generate(self, tokens: Tokens, count: int) -> NDArray[np.int64]:
        """Continue by ``tokens`` ``[batch, n]``, then by the likeliest token ``count`` times: these ``[batch, count]``.

        Raises:
            UserError: as ``read``.
        """
        if count < 1 or self.position + tokens.shape[-1] + count - 1 > self.most:
            total = f"{self.position + tokens.shape[-1]} and {count} more"
            raise UserError(f"tokens: expected {self.most} of a sequence at most, and one behind, got {total}")
        found = np.empty((self._batch, count), np.int64)
        logits = self.read(tokens)
        for at in range(count):
            found[:, at] = logits.argmax(axis=-1)
            if at + 1 < count:
                logits = self._one(found[:, at : at + 1])
        return found

    def time_parts(self) -> dict[str, TimedPart]:
        """Wall times of all steps of ``step``, the token that follows those so far; of ``prompt``, the first tokens
        read at once; and of ``encode``, a source. A sequence must begin anew behind it."""
        parts, last = self._parts, min(self.position, self.most - 1)
        found = {}
        for name, network, executor, position in (
            ("step", parts.step, self._step, last),
            ("prompt", parts.prompt, self._silent, 0),
            ("encode", parts.encode, self._encoder, 0),
        ):
            if network is None or executor is None:
                continue
            self._position[0] = position
            attention = [node for node in network.nodes if isinstance(node, KeptAttentionNode)]
            kept = {node.name: position if node.causal else node.others for node in attention}
            executor.time_runs(WARM_RUNS)
            found[name] = TimedPart(network, executor.plan, step_times(executor), kept)
        self._position[0], self._encoded = 0, self._encoder is None
        return found

    def _read_silently(self, tokens: Tokens) -> None:
        """Keep keys and values of ``tokens``."""
        rows, left = self._parts.prompt_rows, tokens
        while left.shape[1]:
            if self._silent is None:
                self._position[0] += left.shape[1]
                return
            if left.shape[1] < min(FEWEST_ROWS, rows) or self.position + rows > self._parts.room:
                self._one(left[:, :1])
                left = left[:, 1:]
                continue
            now = left[:, :rows]
            missing = rows - now.shape[1]  # keys and values of padding lie behind the position, and are never read
            self._silent.set_input(np.pad(now, ((0, 0), (0, missing))))
            self._silent.run_again()
            self._position[0] += now.shape[1]
            left = left[:, rows:]

    def _one(self, tokens: Tokens) -> NDArray[np.float32]:
        logits = self._step.run(tokens)[:, 0]
        self._position[0] += 1
        return logits

    def _executor(self, network: IntegerNetwork | None) -> Executor | None:
        if network is None:
            return None
        packed = self._packed
        plan = plan_part(
            network, packed.arrays, batch=self._batch, features=packed.features, choices=packed.choices,
            threads=self._threads,
        )  # fmt: skip
        last = network.nodes[-1].shape if network.nodes[-1].name == packed.network.nodes[-1].name else (0,)
        addresses = {name: self._outside(name, size) for name, size in plan.outside.items()}
        return Executor(
            plan, network.nodes[0].shape, last, features=packed.features, outside=addresses, team=self._team
        )

    def _outside(self, name: str, size_bytes: int) -> int:
        if name == SOURCE:
            assert self._encoder is not None
            return self._encoder.input_address
        if name not in self._memory:
            self._memory[name] = zeros(size_bytes)
        return int(self._memory[name].ctypes.data)


@dataclass(frozen=True)
class _Parts:
    whole: Stepwise

    @property
    def most(self) -> int:
        return self.whole.most

    @property
    def prompt_rows(self) -> int:
        return min(PROMPT_ROWS, self.most)

    @property
    def room(self) -> int:
        return round_up(self.most, self.prompt_rows)

    @cached_property
    def encode(self) -> IntegerNetwork | None:
        return self.whole.encode()

    @cached_property
    def prompt(self) -> IntegerNetwork | None:
        return self.whole.silent(self.prompt_rows, self.room)

    @cached_property
    def step(self) -> IntegerNetwork:
        return self.whole.some(1, self.room)


def decoder_windows(packed: PackedNetwork, batch: int = 1) -> tuple[tuple[PartShape, Geometry], ...]:
    """The shapes of the parts of all layers of a ``Decoder``, which ``choices`` may speak of, and where each finds its
    input: of a step all, since together they say from where it reads its weights; of what runs besides each once.

    Raises:
        UserError: as ``Decoder``.
    """
    parts = _Parts(stepwise(packed.network))
    step = network_windows(parts.step, packed.arrays, batch=batch)
    networks = [network for network in (parts.encode, parts.prompt) if network is not None]
    found = [network_windows(network, packed.arrays, batch=batch) for network in networks]
    besides = {shape: (shape, window) for windows in found for shape, window in windows}
    return (*step, *besides.values())


def by_token(packed: PackedNetwork, whole: Run, *, threads: int = 1) -> Run:
    """``whole``, a function that runs ``packed``, as one that generates token by token where the network can."""
    try:
        stepwise(packed.network)
    except UserError:
        return whole
    return Generator(packed, whole, threads=threads)


class Generator:
    """``whole``, a packed network as a function of token numbers, that also generates token by token."""

    def __init__(self, packed: PackedNetwork, whole: Run, *, threads: int = 1) -> None:
        self._packed, self._whole, self._threads = packed, whole, threads

    def __call__(self, inputs: Tokens) -> NDArray[np.float32]:
        """Outputs of whole inputs."""
        return self._whole(inputs)

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._packed, batch=RUN_BATCH, threads=self._threads)

    def generate(self, source: Tokens, begin: int, end: int, padding: int, length: int) -> NDArray[np.int64]:
        """The likeliest tokens behind ``source`` ``[n, source tokens]`` and ``begin``: ``[n, length]``, with
        ``padding`` behind ``end``."""
        found = np.full((len(source), length), padding, np.int64)
        for start in range(0, len(source), RUN_BATCH):
            rows = source[start : start + RUN_BATCH]
            part = found[start : start + RUN_BATCH]
            filled = np.pad(rows, ((0, RUN_BATCH - len(rows)), (0, 0)), mode="edge")
            self._decoder.begin(filled)
            last, is_open = np.full((RUN_BATCH, 1), begin, np.int64), np.ones(RUN_BATCH, bool)
            for step in range(length):
                likeliest = self._decoder.read(last).argmax(axis=-1)
                last[:, 0] = np.where(is_open, likeliest, padding)
                part[:, step] = last[: len(rows), 0]
                is_open &= last[:, 0] != end
                if not is_open.any():
                    break
        return found
