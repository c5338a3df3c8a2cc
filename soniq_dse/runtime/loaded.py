"""A packed file as a function: arrays in, arrays out, from as many threads of a program as call it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from soniq_dse.errors import UserError
from soniq_dse.records.choice import Choices
from soniq_dse.runtime.autotune import tuned_choices
from soniq_dse.runtime.decoder import Decoder
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork
from soniq_dse.runtime.plan import Plan


class LoadedNetwork:
    """A network to be called; ``load`` makes one.

    Callers side by side never wait for one another: each runs on buffers of its own, which are kept for the next, over
    weights that all share, and holds no interpreter lock meanwhile.
    """

    def __init__(self, packed: PackedNetwork, threads: int) -> None:
        self._packed, self._threads = packed, threads
        self._plans: dict[int, Plan] = {}
        self._idle: dict[int, list[Executor]] = defaultdict(list)
        self._lock = threading.Lock()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one sample, channels first."""
        return self._packed.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output."""
        return self._packed.out_shape

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Outputs ``[n, ...]`` (fp32, an array of their own) for ``x [n, ...]``: fp32, channels first, finite; or token
        numbers.

        As many runs of 32 samples as there are, then the others one by one: no output depends on its neighbours.

        Raises:
            UserError: the shape or the type is another, or a value is not finite.
        """
        samples = self._samples(x)
        outputs = np.empty((len(samples), *self.out_shape), np.float32)
        whole = len(samples) // RUN_BATCH * RUN_BATCH
        for batch, begin, end in ((RUN_BATCH, 0, whole), (1, whole, len(samples))):
            if begin == end:
                continue
            with self._borrowed(batch) as executor:
                for at in range(begin, end, batch):
                    outputs[at : at + batch] = executor.run(samples[at : at + batch])
        return outputs

    def _samples(self, x: ArrayLike) -> NDArray[np.float32 | np.integer]:
        is_tokens = self._packed.n_tokens is not None
        shape = ", ".join(["n", *map(str, self.in_shape)])
        expected = f"{'integers' if is_tokens else 'float32'} [{shape}] with n >= 1"
        try:
            samples = np.asarray(x)
        except ValueError as error:  # lists of several lengths
            raise UserError(f"x: expected {expected}, got what NumPy makes no array of: {error}") from error
        is_kind = np.issubdtype(samples.dtype, np.integer) if is_tokens else samples.dtype == np.float32
        if not is_kind or samples.shape[1:] != self.in_shape or samples.ndim == 0 or len(samples) == 0:
            raise UserError(f"x: expected {expected}, got {samples.dtype} {list(samples.shape)}")
        return samples

    def decoder(self, *, batch: int = 1) -> Decoder:
        """A new ``Decoder`` of ``batch`` sequences side by side, for one caller at a time.

        Raises:
            UserError: the network does not give a row for each of its tokens, or looks ahead.
        """
        return Decoder(self._packed, batch=batch, threads=self._threads)

    @contextmanager
    def _borrowed(self, batch: int) -> Iterator[Executor]:
        """An executor for ``batch`` samples that nobody else uses meanwhile."""
        with self._lock:  # planning is done once, by whoever comes first
            executor = self._idle[batch].pop() if self._idle[batch] else self._new(batch)
        try:
            yield executor
        finally:
            with self._lock:
                self._idle[batch].append(executor)

    def _new(self, batch: int) -> Executor:
        if batch not in self._plans:
            self._plans[batch] = self._packed.plan(batch, threads=self._threads)
        return self._packed.bind(self._plans[batch])


def load(path: str | Path, *, threads: int = 1, choices: Choices | None = None) -> LoadedNetwork:
    """The network of a packed file, ready for calls of one sample.

    Args:
        threads: of each call; outputs are the same for any number.
        choices: the kernels to run on; default: those that ``autotune`` measured on this machine, the catalog's ranking
            for what it did not.

    Raises:
        UserError: the file is not there, not such a file, or damaged; ``threads`` is not possible.
        MissingCapabilityError: there is no compiler.
    """
    packed = PackedNetwork.load(Path(path))
    chosen = tuned_choices(threads=threads) if choices is None else choices
    loaded = LoadedNetwork(packed.with_choices(chosen), threads)
    loaded(packed.as_input(np.zeros((1, *loaded.in_shape), np.int64)))
    return loaded
