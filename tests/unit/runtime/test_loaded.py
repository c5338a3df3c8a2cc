"""A packed file as a function: right answers for any batch, from any number of threads at once, and clear refusals."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from network_factory import NetworkFactory

import soniq_dse.runtime
from soniq_dse.errors import UserError
from soniq_dse.formats.network import evaluate
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.pack import RUN_BATCH, PackedNetwork

PROGRAM_THREADS = 4


def network(size: int = 8, width: int = 16) -> PackedNetwork:
    net = NetworkFactory((3, size, size), "w1a1+w4a4")
    trunk = net.relu(net.conv(net.quantize("x", signed=True), width, 3, padding=(1, 1)))
    inner = net.relu(net.conv(net.quantize(trunk, signed=False), width, 3, padding=(1, 1)))
    trunk = net.add(net.conv(net.quantize(inner, signed=False), width, 1), trunk)
    net.linear(net.quantize(net.flatten(net.pool(trunk, "avg_pool2d", size)), signed=True), 5)
    return PackedNetwork(net.network(), net.arrays)


@pytest.fixture
def packed() -> PackedNetwork:
    return network()


@pytest.fixture
def path(packed: PackedNetwork, tmp_path: Path) -> Path:
    packed.save(tmp_path / "net.soniq")
    return tmp_path / "net.soniq"


def inputs(packed: PackedNetwork, samples: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((samples, *packed.in_shape)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 3, RUN_BATCH, RUN_BATCH + 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_those_of_the_golden_arithmetic(
    packed: PackedNetwork, path: Path, samples: int, threads: int
) -> None:
    x = inputs(packed, samples)
    loaded = soniq_dse.runtime.load(path, threads=threads)
    golden = evaluate(packed.network, packed.arrays, x)
    np.testing.assert_array_equal(loaded(x), golden)
    assert (loaded.in_shape, loaded.out_shape) == (packed.in_shape, packed.out_shape)


def test_inputs_that_are_views_and_outputs_that_are_kept(packed: PackedNetwork, path: Path) -> None:
    x = inputs(packed, 4)
    loaded = soniq_dse.runtime.load(path)
    expected = loaded(x)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(loaded(channels_last), expected)
    kept = loaded(x[:1])
    loaded(x[1:2])
    np.testing.assert_array_equal(kept, expected[:1])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_a_program_share_one_network(packed: PackedNetwork, path: Path, threads: int) -> None:
    loaded = soniq_dse.runtime.load(path, threads=threads)
    inputs_of = [inputs(packed, 40)[i::PROGRAM_THREADS] * (i + 1) for i in range(PROGRAM_THREADS)]
    expected = [packed.run(x) for x in inputs_of]
    wrong: list[int] = []
    begin = threading.Barrier(PROGRAM_THREADS)

    def call(index: int) -> None:
        begin.wait()
        for _ in range(25):
            if not np.array_equal(loaded(inputs_of[index]), expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(index,)) for index in range(PROGRAM_THREADS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_run_holds_no_interpreter_lock() -> None:
    """While one thread is inside one long call, another one goes on in Python."""
    executor = network().executor(1)
    executor.set_input(inputs(network(), 1))
    repeats, inside, done = 2000, threading.Event(), threading.Event()
    seen = 0

    def call() -> None:
        inside.set()
        executor.time_runs(repeats)  # one call of C++
        done.set()

    caller = threading.Thread(target=call)
    caller.start()
    inside.wait()
    while not done.is_set():
        seen += 1
    caller.join()
    assert seen > 1000


def test_callers_have_buffers_of_their_own_over_one_copy_of_the_weights(packed: PackedNetwork) -> None:
    plan = packed.plan(1)
    one, other = packed.bind(plan), packed.bind(plan)
    assert not np.shares_memory(one._memory, other._memory)
    weights = [[struct.kept[0].kept[0].weights for struct in _layers(executor)] for executor in (one, other)]
    assert weights[0] == weights[1]
    assert all(weights[0])


def _layers(executor: Executor) -> list:
    return [struct for struct in executor._arguments if hasattr(struct, "parts")]


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (
            np.zeros((1, 3, 8, 9), np.float32),
            r"float32 \[n, 3, 8, 8\] with n >= 1, got float32 \[1, 3, 8, 9\]",
        ),
        (np.zeros((3, 8, 8), np.float32), r"got float32 \[3, 8, 8\]"),
        (np.zeros((0, 3, 8, 8), np.float32), r"got float32 \[0, 3, 8, 8\]"),
        (np.float32(1), r"got float32 \[\]"),
        (np.zeros((70, 3, 8, 8)), r"expected float32 \[n, 3, 8, 8\] .* got float64 \[70, 3, 8, 8\]"),
        ([[1.0], [1.0, 2.0]], "what NumPy makes no array of"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "expected finite numbers, got infinities or NaN"),
        (np.full((1, 3, 8, 8), np.inf, np.float32), "expected finite numbers, got infinities or NaN"),
    ],
)
def test_what_cannot_be_run_is_refused_and_the_next_call_runs(
    packed: PackedNetwork, path: Path, x: np.ndarray, got: str
) -> None:
    loaded = soniq_dse.runtime.load(path)
    with pytest.raises(UserError, match=got):
        loaded(x)
    good = inputs(packed, 1)
    np.testing.assert_array_equal(loaded(good), packed.run(good))


def test_a_missing_file_and_impossible_threads_are_refused(path: Path) -> None:
    with pytest.raises(UserError, match="got no such file"):
        soniq_dse.runtime.load(path.with_name("none.soniq"))
    with pytest.raises(UserError, match="threads: expected 1 to 256, got 0"):
        soniq_dse.runtime.load(path, threads=0)
