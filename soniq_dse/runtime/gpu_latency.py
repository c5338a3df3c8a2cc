"""Networks on a GPU: held to the golden arithmetic, timed; and the timings that were kept where there is none."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.formats.network import evaluate
from soniq_dse.kernels.gpu_catalog import gpu_layer_kernel_for, part_for
from soniq_dse.kernels.gpu_device import GpuDevice, NoDevice
from soniq_dse.kernels.gpu_layer import Epilogue, GpuSegment, layer_grid, layer_table
from soniq_dse.records.cost import Measurement
from soniq_dse.records.gpu import GpuKernel, GpuModel, KeptDesign
from soniq_dse.records.network import IntegerNetwork
from soniq_dse.records.workload import Conv2dLayer, GemmLayer
from soniq_dse.resources import shipped_folder
from soniq_dse.runtime.gpu_network import GpuNetwork, Launch

KEPT_FILE = "designs.jsonl"
LAUNCH_S = 0.05
"""Most seconds for one launch by itself."""

Arrays = Mapping[str, NDArray[Any]]


def on_gpu(network: IntegerNetwork, arrays: Arrays, gpu: GpuModel, device: GpuDevice, batch: int) -> GpuNetwork:
    """``network`` on ``device``, by the layer kernel for ``gpu``.

    Raises:
        UserError: an operator has no kernel there.
        MissingCapabilityError: the device is full.
    """
    return GpuNetwork(network, arrays, device, gpu_layer_kernel_for(gpu), batch)


def shape_of(network: IntegerNetwork, arrays: Arrays, gpu: GpuModel, batch: int) -> str:
    """What kept timings of the network on ``gpu`` are found by (``GpuNetwork.shape_sha256``); no GPU is needed.

    Raises:
        UserError: an operator has no kernel there.
    """
    return on_gpu(network, arrays, gpu, NoDevice(), batch).shape_sha256


def codes_differ(placed: GpuNetwork, arrays: Arrays, x: NDArray[Any]) -> str | None:
    """What differs from the golden codes on the inputs ``x``; None: nothing."""
    wrong = 0
    for at in range(0, len(x), placed.batch):
        chunk = np.resize(x[at : at + placed.batch], (placed.batch, *x.shape[1:]))
        placed.run(chunk)
        wrong += sum(placed.unequal_codes(evaluate(placed.network, arrays, chunk, keep=True)).values())
    return f"the GPU differs from the golden arithmetic in {wrong} words of codes" if wrong else None


def measure_on_gpu(placed: GpuNetwork, device: GpuDevice, max_s: float = 1.0) -> Measurement:
    """Latency of a run on random inputs that are on the device, launches following one another; then of every node.

    Raises:
        MissingCapabilityError: the device fails.
    """
    shape = placed.network.nodes[0].shape
    placed.set_input(np.random.default_rng(0).standard_normal((placed.batch, *shape)).astype(np.float32))
    timing = device.time(placed.start, max_s)
    per_layer: dict[str, float] = {}
    for one in placed.launches:
        alone = device.time(_starter(device, one), LAUNCH_S)
        per_layer[one.node] = per_layer.get(one.node, 0.0) + alone.median_s * 1e6
    host = device.host()
    return Measurement(
        batch=placed.batch,
        threads=1,
        median_us=timing.median_s * 1e6,
        mad_us=timing.mad_s * 1e6,
        samples=timing.samples,
        settled=timing.settled,
        per_layer_us=per_layer,
        host=host,
        compiler=device.compiler(),
        flags=host.features,
    )


def random_segment(layer: Conv2dLayer, part: GpuKernel, channels: int, seed: int = 0) -> GpuSegment:
    """Uniform codes and weights of ``channels`` of all groups; what the sum of codes adds is the sum itself."""
    rng = np.random.default_rng(seed)
    largest = 127 if part.wgt == "s8" else 2**part.weight_bits - 1
    shape = (layer.out_channels, *layer.kernel, channels // layer.groups)
    pixels, most = layer.batch * layer.height * layer.width, 2**part.activation_bits
    return GpuSegment(
        part=part,
        codes=rng.integers(0, most, (pixels, channels), dtype=np.uint8),
        pad_codes=rng.integers(0, most, channels, dtype=np.uint8),
        weights=(2 * rng.integers(0, largest + 1, shape, dtype=np.int16) - largest).astype(np.int8),
        scale=np.ones(layer.out_channels, np.float32),
        offset=np.zeros(layer.out_channels, np.int32),
    )


def as_convolution(layer: GemmLayer | Conv2dLayer) -> Conv2dLayer:
    """A linear layer is a convolution of images of one pixel."""
    if isinstance(layer, Conv2dLayer):
        return layer
    return Conv2dLayer(
        name=layer.name, batch=layer.m, in_channels=layer.k, out_channels=layer.n, height=1, width=1, kernel=(1, 1)
    )


def layer_alone(layer: GemmLayer | Conv2dLayer, gpu: GpuModel, device: GpuDevice, max_s: float = 0.2) -> Measurement:
    """Latency of one launch of the layer kernel on random codes, its weights in the cache where they fit.

    Raises:
        UserError: a level without a kernel, or k beyond its limit.
        MissingCapabilityError: the device fails.
    """
    kernel, conv = gpu_layer_kernel_for(gpu), as_convolution(layer)
    device.release()
    made = [random_segment(conv, part_for(kernel, one.level), one.channels, i) for i, one in enumerate(layer.segments)]
    out = device.place(np.zeros(conv.rows * conv.out_channels, np.float32))
    table = layer_table(conv, made, Epilogue(np.zeros(conv.out_channels, np.float32)), out, device.place)
    one = Launch(
        layer.name, kernel.path, kernel.symbol, layer_grid(kernel, conv), kernel.threads, device.place(table), b""
    )
    timing, host = device.time(_starter(device, one), max_s), device.host()
    return Measurement(
        median_us=timing.median_s * 1e6,
        mad_us=timing.mad_s * 1e6,
        samples=timing.samples,
        settled=timing.settled,
        host=host,
        compiler=device.compiler(),
        flags=host.features,
    )


def _starter(device: GpuDevice, one: Launch) -> Callable[[], None]:
    return lambda: device.launch(one.path, one.symbol, one.grid, one.threads, one.table)


def keep_design(folder: Path, shape_sha256: str, network: str, measurement: Measurement) -> None:
    """Add a line to ``folder/designs.jsonl``, to be taken along to ``hwmodels/measured/NAME``.

    Raises:
        UserError: the file cannot be written.
    """
    kept = KeptDesign(
        shape_sha256=shape_sha256,
        batch=measurement.batch,
        network=network,
        date=datetime.date.today().isoformat(),
        measurement=measurement,
    )
    try:
        with (folder / KEPT_FILE).open("a", encoding="utf-8") as file:
            file.write(kept.model_dump_json() + "\n")
    except OSError as error:
        raise UserError(f"{folder / KEPT_FILE}: expected to write there, got: {error.strerror}") from error


def kept_design(gpu: GpuModel, shape_sha256: str, batch: int) -> KeptDesign | None:
    """The latest kept timing of a network of this shape on a GPU that ``gpu`` speaks of; below the current folder,
    else among the shipped files.

    Raises:
        UserError: a line is no KeptDesign.
    """
    if not gpu.matches:
        return None  # a what-if
    place = Path("measured") / gpu.name / KEPT_FILE
    for folder in (Path("hwmodels"), shipped_folder("hwmodels")):
        found = [
            one
            for one in _lines(folder / place)
            if (one.shape_sha256, one.batch) == (shape_sha256, batch) and _is_of(one.measurement, gpu.matches)
        ]
        if found:
            return found[-1]
    return None


def _is_of(measurement: Measurement, names: Iterable[str]) -> bool:
    return measurement.host is not None and measurement.host.processor.startswith(tuple(names))


def _lines(path: Path) -> Iterator[KeptDesign]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        try:
            yield KeptDesign.from_json(line.encode())
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "line"
            raise UserError(f"{path}:{number}: {field}: expected a KeptDesign record, got {first['msg']}") from error
