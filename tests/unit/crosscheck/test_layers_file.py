"""Every mistake in a file of layers is one line: file, layer, field, expected, got, what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soniq_dse.crosscheck import read_layers
from soniq_dse.errors import UserError
from soniq_dse.hardware.load import load_hardware
from soniq_dse.records.workload import Conv2dLayer, GemmLayer

HW = load_hardware("avx2")


def segment(weight_bits: int, activation_bits: int, channels: int, **more: Any) -> dict[str, Any]:
    return {"weight_bits": weight_bits, "activation_bits": activation_bits, "channels": channels, **more}


def gemm(**changes: Any) -> dict[str, Any]:
    return {"name": "fc", "op": "gemm", "m": 4, "n": 8, "k": 16, "segments": [segment(1, 1, 16)]} | changes


def conv(**changes: Any) -> dict[str, Any]:
    shape = {"in_channels": 8, "out_channels": 8, "height": 4, "width": 4, "kernel": [3, 3], "padding": [1, 1]}
    return {"name": "c", "op": "conv2d", **shape, "segments": [segment(1, 1, 8)]} | changes


def write(folder: Path, content: Any) -> Path:
    path = folder / "layers.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_layers_of_the_documented_form_are_read(tmp_path: Path) -> None:
    levels = [segment(8, 8, 5), segment(4, 4, 3)]
    depthwise = conv(name="dw", groups=8, segments=levels, batch=2, stride=[2, 2], threads=2)
    mixed = gemm(name="mixed", segments=[segment(1, 1, 12), segment(4, 4, 4)])
    found = read_layers(write(tmp_path, [gemm(), mixed, depthwise]), HW)
    assert [layer.name for layer in found] == ["fc", "mixed", "dw"]
    assert isinstance(found[0], GemmLayer)
    assert isinstance(found[2], Conv2dLayer)
    assert (found[2].groups, found[2].stride, found[2].threads) == (8, (2, 2), 2)


MISTAKES = {
    "[{": ":1:3: expected JSON",
    '{"name": "fc"}': "expected an array of layers, [{...}, ...], got an object",
    "[]": "expected an array of 1 to 10000 layers, got 0",
    '[{"m": NaN}]': "NaN is no number of JSON",
    '[{"name": "fc", "m": 1, "m": 2}]': "got: field 'm' of 'fc' twice",
    '[{"m": %s}]' % ("9" * 5000): "expected JSON of plain numbers",
    "[" * 100_000: "expected JSON of plain numbers",
    '[{"name": "\\ud800", "op": "gemm"}]': "[0] '\\ud800': expected text of whole characters",
    '["fc"]': '[0]: expected a layer, {...}, got "fc"',
}
FIELDS = [
    (gemm(op="conv"), "[0] 'fc' op: expected gemm or conv2d, got \"conv\"; nearest valid choice: 'conv2d'"),
    (gemm(m=-1), "[0] 'fc' m: expected a whole number of at least 1, got -1; nearest valid choice: 1"),
    (gemm(n=0), "[0] 'fc' n: expected a whole number of at least 1, got 0"),
    (gemm(m="4"), "[0] 'fc' m: expected a whole number, got \"4\""),
    (gemm(m=float("1e300")), "[0] 'fc' m: expected a whole number, got 1e+300"),
    (gemm(m=True), "[0] 'fc' m: expected a whole number, got true"),
    (gemm(m=10**30), "[0] 'fc' m: expected at most 2147483647, got 1"),
    ({k: v for k, v in gemm().items() if k != "k"}, "[0] 'fc' k: expected a value, got nothing"),
    (gemm(thread=2), "[0] 'fc' thread: expected a known field, got 'thread'; nearest valid choice: 'threads'"),
    (gemm(name=""), "[0] name: expected a name, got an empty one"),
    (gemm(segments=[]), "[0] 'fc' segments: expected at least one segment"),
    (gemm(segments=None), "[0] 'fc' segments: expected an array, got null"),
    (gemm(segments=[segment(1, 1, 15)]), "segments of fc: expected 16 channels in all, got 15"),
    (gemm(segments=[segment(9, 1, 16)]), "segments[0].weight_bits: expected a whole number of at most 8, got 9"),
    (gemm(segments=[segment(4, 12, 16)]), "segments[0]: expected activation_bits of 1 to 8"),
    (gemm(segments=[segment(4, 32, 16)]), "segments[0]: expected activation_bits of 1 to 8"),
    (gemm(segments=[segment(1, 1, 16, bits=3)]), "segments[0].bits: expected a known field, got 'bits'"),
    (gemm(k=10**5, segments=[segment(8, 8, 10**5)]), "products in a sum at w8a8"),
    (gemm(threads=10**5), f"threads: expected at most the {HW.cores} cores of avx2, got 100000"),
    (conv(kernel=[3]), "[0] 'c' kernel: expected [height, width], got [3]"),
    (conv(kernel=3), "[0] 'c' kernel: expected [height, width], got 3"),
    (conv(kernel=[9, 9]), "kernel of c: expected it to fit the padded input"),
    (conv(groups=3), "[0] 'c' groups: expected a divisor of 8 input and 8 output channels, got 3"),
    (conv(groups=4, segments=[segment(1, 1, 6), segment(4, 4, 2)]), "expected multiples of 4 channels, a share"),
    (conv(groups=2, segments=[segment(1, 1, 4)]), "segments of c: expected 8 channels in all, got 4"),
    (conv(padding=[-1, 0]), "[0] 'c' padding[0]: expected a whole number of at least 0, got -1"),
]


@pytest.mark.parametrize("text", MISTAKES)
def test_a_file_that_is_no_array_of_layers(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_layers(path, HW)
    assert str(error.value).startswith(str(path))
    assert MISTAKES[text] in str(error.value)


@pytest.mark.parametrize(("layer", "message"), FIELDS)
def test_a_wrong_field_is_named(tmp_path: Path, layer: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [layer])
    with pytest.raises(UserError) as error:
        read_layers(path, HW)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: [0]")
    assert "\n" not in str(error.value)


def test_all_mistakes_at_once_and_names_only_once(tmp_path: Path) -> None:
    path = write(tmp_path, [gemm(m=0, n=0), gemm(name="a"), gemm(name="a")])
    with pytest.raises(UserError) as error:
        read_layers(path, HW)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[2] == f"{path}: [2] 'a' name: expected a name of its own, got 'a', as layer 1"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_layers(tmp_path / "none.json", HW)
    with pytest.raises(UserError, match="Is a directory"):
        read_layers(tmp_path, HW)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe[")
    with pytest.raises(UserError, match="expected UTF-8 text"):
        read_layers(binary, HW)
