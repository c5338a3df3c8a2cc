"""The deployed form of a network: one safetensors file with a JSON manifest, weights at their true bits.

It is the same for every host: kernels, padding and channel order are chosen when it is planned for one. Its tensors:
``<node>/weight/<group>/<level>`` uint8 ``[out_channels / groups, bytes]`` (codes of the level's input channels of that
group in ascending order, each with its kernel positions, as a bit stream of ``weight_bits``), ``<node>/scale`` and
``<node>/bias``; the arrays of other nodes as they are (``<node>/table``, ``<node>/gain``); and nothing else. The
manifest, in the metadata, is ``format`` (its version at the end), ``network``
(the network's record, whose array hashes the loaded arrays must meet) and ``sha256`` (of the text of ``network``).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.formats import format_of
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels.strips import Geometry
from soniq_dse.records.base import ArrayRef
from soniq_dse.records.choice import Choices, PartShape
from soniq_dse.records.network import Conv2dNode, InputNode, IntegerNetwork, LinearNode, WeightOnlyNode
from soniq_dse.records.palette import FLOAT_BITS, Level
from soniq_dse.runtime.executor import Executor
from soniq_dse.runtime.graph import Graph
from soniq_dse.runtime.layer_steps import NO_CHOICES
from soniq_dse.runtime.plan import Plan
from soniq_dse.runtime.planner import network_windows, plan_network
from soniq_dse.runtime.validate import validate
from soniq_dse.store import array_sha256

FORMAT_NAME = "soniq-dse-packed-network-"
VERSION = 2
MOST_WORDS = 400
"""Characters of an error that quotes a file."""
RUN_BATCH = 32
"""Samples per call when a data set is run: enough to amortise the call, few enough that activations stay in cache."""

Arrays = Mapping[str, NDArray[Any]]
MatmulNode = Conv2dNode | LinearNode


class PackedNetwork:
    """A network ready to run.

    ``features`` are the CPU features its kernels may use, default: this host's; ``choices`` say which kernels do.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        arrays: Arrays,
        features: Sequence[str] | None = None,
        choices: Choices = NO_CHOICES,
    ) -> None:
        self.network = network
        self.arrays = {ref.sha256: arrays[ref.sha256] for node in network.nodes for ref in node.refs.values()}
        self.features = tuple(detect_host().features if features is None else features)
        self.choices = choices
        self._executors: dict[tuple[int, int], Executor] = {}

    def with_choices(self, choices: Choices) -> PackedNetwork:
        """The same network on the kernels of ``choices``; its results are the same."""
        return PackedNetwork(self.network, self.arrays, self.features, choices)

    def shapes(self, batch: int) -> tuple[PartShape, ...]:
        """The shapes of the parts of all layers at ``batch`` samples a call, which ``choices`` may speak of."""
        return tuple(shape for shape, _ in self.windows(batch))

    def windows(self, batch: int) -> tuple[tuple[PartShape, Geometry], ...]:
        """``shapes`` with the geometry of their layers."""
        return network_windows(self.network, self.arrays, batch=batch)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input sample, channels first."""
        return self.network.nodes[0].shape

    @property
    def n_tokens(self) -> int | None:
        """The input is token numbers below this; None: fp32."""
        first = self.network.nodes[0]
        return first.n_tokens if isinstance(first, InputNode) else None

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output."""
        return self.network.nodes[-1].shape

    @functools.cached_property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of the file."""
        graph, tensors = Graph(self.network), {}
        for node in _layers(self.network):
            tensors[f"{node.name}/scale"] = self.arrays[node.scale.sha256]
            tensors[f"{node.name}/bias"] = self.arrays[node.bias.sha256]
            weight = self.arrays[node.weight.sha256]
            for name, level, rows, columns in _blocks(graph, node):
                block = np.ascontiguousarray(weight[rows][:, columns]).reshape(rows.stop - rows.start, -1)
                tensors[name] = _packed(level, block)
        for layer in _weight_only(self.network):
            tensors[f"{layer.name}/weight"] = _packed(_level(layer), self.arrays[layer.weight.sha256])
        return tensors | {name: self.arrays[ref.sha256] for name, ref in _whole(self.network).items()}

    @property
    def size_bytes(self) -> int:
        """Bytes of all arrays, weights at their true bits."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            UserError: it cannot be written.
        """
        from safetensors.numpy import save

        manifest = self.network.model_dump_json()
        metadata = {"format": f"{FORMAT_NAME}{VERSION}", "network": manifest, "sha256": _sha256(manifest)}
        try:
            path.write_bytes(save(self.tensors, metadata))
        except OSError as error:
            raise UserError(f"{path}: expected a place to write the packed network, got {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, features: Sequence[str] | None = None) -> PackedNetwork:
        """Read a file that ``save`` wrote.

        Raises:
            UserError: it is not there, not such a file, or damaged.
        """
        network, tensors = _read(path)
        try:
            validate(network)
            arrays = _unpacked_arrays(network, tensors)
        except UserError as error:
            raise UserError(f"{path}: {_short(str(error))}") from error
        return cls(network, arrays, features)

    def executor(self, batch: int, *, threads: int = 1, keep: Sequence[str] = ()) -> Executor:
        """The network planned for ``batch`` samples a call by ``threads`` threads; ``keep``: nodes whose codes survive
        the run. It is made once and kept, and serves one caller at a time.

        Raises:
            UserError, MissingCapabilityError: as ``plan_network``.
        """
        if not keep and (batch, threads) in self._executors:
            return self._executors[batch, threads]
        executor = self.bind(self.plan(batch, threads=threads), keep=keep)
        if not keep:
            self._executors[batch, threads] = executor
        return executor

    def plan(self, batch: int, *, threads: int = 1) -> Plan:
        """The network laid out for ``batch`` samples a call by ``threads`` threads.

        Raises:
            UserError, MissingCapabilityError: as ``plan_network``.
        """
        return plan_network(
            self.network, self.arrays, batch=batch, features=self.features, choices=self.choices, threads=threads
        )

    def bind(self, plan: Plan, *, keep: Sequence[str] = ()) -> Executor:
        """A new executor of ``plan``, with buffers and threads of its own; the weights are those of the plan."""
        return Executor(plan, self.in_shape, self.out_shape, features=self.features, keep=keep)

    def as_input(self, x: NDArray[Any]) -> NDArray[Any]:
        """``x`` as the network reads it: in fp32, or as it is where that should be token numbers."""
        return np.asarray(x, np.float32) if self.n_tokens is None else x

    def run(self, x: NDArray[Any], *, batch: int | None = None, threads: int = 1) -> NDArray[np.float32]:
        """Outputs ``[n, ...]`` for ``x [n, ...]`` (fp32, channels first, or token numbers), ``batch`` samples a call
        (default up to 32), by ``threads`` threads (the outputs are the same for any number).

        Raises:
            UserError: the shape is not the network's, or a value is not finite.
        """
        if x.ndim < 1 or x.shape[1:] != self.in_shape or len(x) == 0:
            raise UserError(f"x: expected [n, {', '.join(map(str, self.in_shape))}] with n >= 1, got {list(x.shape)}")
        executor = self.executor(batch or min(len(x), RUN_BATCH), threads=threads)
        return np.concatenate([y for y, _ in run_chunks(executor, self.as_input(x))])


def run_chunks(executor: Executor, x: NDArray[Any]) -> Iterator[tuple[NDArray[np.float32], slice]]:
    """(outputs, which samples) for ``x`` in chunks of the executor's batch; the last one is filled up with zeros."""
    batch = executor.plan.batch
    for at in range(0, len(x), batch):
        chunk = x[at : at + batch]
        filled = chunk
        if len(chunk) < batch:
            filled = np.concatenate([chunk, np.zeros((batch - len(chunk), *x.shape[1:]), x.dtype)])
        yield executor.run(filled)[: len(chunk)], slice(at, at + len(chunk))


def _layers(network: IntegerNetwork) -> Iterator[MatmulNode]:
    return (node for node in network.nodes if isinstance(node, Conv2dNode | LinearNode))


def _whole(network: IntegerNetwork) -> dict[str, ArrayRef]:
    """The arrays that are stored as they are, by the names of their tensors."""
    others = [node for node in network.nodes if not isinstance(node, Conv2dNode | LinearNode)]
    refs = {f"{node.name}/{field}": ref for node in others for field, ref in node.refs.items()}
    packed = {f"{node.name}/weight" for node in _weight_only(network)}
    return {name: ref for name, ref in refs.items() if name not in packed}


def _weight_only(network: IntegerNetwork) -> list[WeightOnlyNode]:
    return [node for node in network.nodes if isinstance(node, WeightOnlyNode)]


def _level(node: WeightOnlyNode) -> Level:
    return Level(weight_bits=node.bits, activation_bits=FLOAT_BITS)


def _blocks(graph: Graph, node: MatmulNode) -> Iterator[tuple[str, Level, slice, NDArray[np.int64]]]:
    """(tensor name, level, output channels, input channels within the group) of each group and level of a layer."""
    quantizer = graph.quantizer(node.inputs[0])
    if quantizer is None:
        raise UserError(f"node {node.name}: expected codes of a quantize node, got fp32")
    groups = node.groups if isinstance(node, Conv2dNode) else 1
    out_group, in_group = node.weight.shape[0] // groups, node.weight.shape[1]
    level_of_channel = np.asarray(quantizer.level_of_channel).reshape(groups, in_group)
    for group in range(groups):
        rows = slice(group * out_group, (group + 1) * out_group)
        for index in np.unique(level_of_channel[group]):
            columns = np.flatnonzero(level_of_channel[group] == index)
            yield f"{node.name}/weight/{group}/{index}", quantizer.palette.levels[int(index)], rows, columns


def _unpacked_arrays(network: IntegerNetwork, tensors: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays of ``network`` by their hashes, once its file is known to hold just them.

    Raises:
        UserError: a tensor is absent, too many, of another type or shape, or of another hash.
    """
    graph, arrays = Graph(network), {}
    _expect_tensors(graph, network, tensors)
    for node in _layers(network):
        arrays[node.scale.sha256] = tensors[f"{node.name}/scale"]
        arrays[node.bias.sha256] = tensors[f"{node.name}/bias"]
        weight = np.zeros(node.weight.shape, np.int8)
        kernel = node.weight.shape[2:]
        for name, level, rows, columns in _blocks(graph, node):
            count = len(columns) * prod(kernel)
            weight[rows, columns] = _unpacked(level, tensors[name], count).reshape(-1, len(columns), *kernel)
        arrays[node.weight.sha256] = weight
    for layer in _weight_only(network):
        packed = tensors[f"{layer.name}/weight"]
        arrays[layer.weight.sha256] = _unpacked(_level(layer), packed, layer.weight.shape[1]).astype(np.int8)
    arrays |= {ref.sha256: tensors[name] for name, ref in _whole(network).items()}
    for sha256, array in arrays.items():
        if array_sha256(array) != sha256:
            raise UserError(f"expected arrays of the hashes in its manifest, got another for {sha256[:12]}; damaged")
    return arrays


def _expect_tensors(graph: Graph, network: IntegerNetwork, tensors: Arrays) -> None:
    """Refuse a file before memory is taken for what its manifest says."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for node in _layers(network):
        expected[f"{node.name}/scale"] = "float32", node.scale.shape
        expected[f"{node.name}/bias"] = "float32", node.bias.shape
        for name, level, rows, columns in _blocks(graph, node):
            bits = len(columns) * prod(node.weight.shape[2:]) * level.weight_bits
            expected[name] = "uint8", (rows.stop - rows.start, -(-bits // 8))
    for layer in _weight_only(network):
        out_features, in_features = layer.weight.shape
        expected[f"{layer.name}/weight"] = "uint8", (out_features, -(-in_features * layer.bits // 8))
    expected |= {name: (ref.dtype, ref.shape) for name, ref in _whole(network).items()}
    for name in sorted(expected.keys() ^ tensors.keys()):
        got = "none" if name in expected else "one more"
        raise UserError(f"expected the tensors that its manifest names, got {got}: {name!r}")
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        if found.dtype != dtype or found.shape != shape:
            raise UserError(f"tensor {name}: expected {dtype} {list(shape)}, got {found.dtype} {list(found.shape)}")


def _packed(level: Level, integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    unit, bits = format_of(level.weight_format), level.weight_bits
    grid = unit.grid(bits)
    codes = (integers.astype(np.int16) + grid.offset) // grid.multiplier
    return unit.pack(codes.astype(np.uint8), bits)


def _unpacked(level: Level, packed: NDArray[np.uint8], count: int) -> NDArray[np.int32]:
    unit, bits = format_of(level.weight_format), level.weight_bits
    return unit.integers(unit.unpack(packed, count, bits), bits)


def _read(path: Path) -> tuple[IntegerNetwork, dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a packed network, got no such file") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: expected a packed network (safetensors), got {_short(str(error))}") from error
    _expect_version(path, metadata.get("format", ""))
    manifest = metadata.get("network", "")
    if metadata.get("sha256") != _sha256(manifest):
        raise UserError(f"{path}: expected the manifest whose hash is beside it, got another; damaged")
    try:
        return IntegerNetwork.from_json(manifest), tensors
    except ValidationError as error:
        first = error.errors()[0]
        got = _short(f"{first['msg']}, at {'.'.join(map(str, first['loc'])) or 'the whole'}")
        raise UserError(f"{path}: expected a network's record as manifest, got: {got}") from error


def _expect_version(path: Path, found: str) -> None:
    version = found.removeprefix(FORMAT_NAME)
    if version == str(VERSION):
        return
    hint = ""
    if version != found and version.isdecimal():
        hint = "; a newer soniq-dse wrote it" if int(version[:9]) > VERSION else "; explore writes it again"
    raise UserError(f"{path}: expected the format {FORMAT_NAME}{VERSION}, got {found[:60]!r}{hint}")


def _short(text: str) -> str:
    """One line of bounded length: a file may hold names of any."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}..."


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
