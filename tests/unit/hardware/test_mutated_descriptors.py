"""Damaged descriptors either load or are refused with an error: 2,000 mutations of a fixed seed, and random text."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soniq_dse.hardware.find import shipped_descriptors
from soniq_dse.hardware.load import DescriptorError, load_hardware, load_machine

SEED = 20260131
VALUES = [
    b"",
    b"~",
    b"null",
    b"no",
    b"true",
    b"-1",
    b"0",
    b"1e9",
    b"1e999",
    b".nan",
    b"-.inf",
    b"99999999999999999999999",
    b"0x1F",
    b"3.7 GHz",
    b"'",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b"&a",
    b"*a",
    b"!!python/object:os.system",
    b"!x y",
    b"- a",
    b"? b",
    b": c",
    b"|",
    b">",
    b"%YAML 1.1",
    b"---",
    b"...",
    b"\t",
    b"\x00",
    b"\xff\xfe",
    "\u2028\ufeff\U0001f600".encode(),
    b"2026-13-45",
    b"<<: {a: b}",
    b'"\\ud800"',
    b'"\\x00"',
    b"1_000",
    b"0o17",
    b"12:30:45",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"a" * 5000,
]


def of_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Flip, drop, add or cut off a few bytes."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = rng.choice(VALUES)
        elif len(data) > 64 and rng.random() < 0.2:
            del data[at:]
        data = data or bytearray(b" ")
    return bytes(data)


def of_lines(rng: random.Random, raw: bytes) -> bytes:
    """Drop, repeat, swap or indent lines."""
    lines = raw.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(other, lines[at])
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = rng.choice([b"  ", b"\t", b"- ", b" "]) + lines[at] if kind == 3 else lines[at].lstrip()
    return b"\n".join(lines)


def of_values(rng: random.Random, raw: bytes) -> bytes:
    """Replace what follows a colon, or a key, or a number."""
    pattern = rng.choice([rb"(?<=: )[^\s,{}\[\]]+", rb"[A-Za-z_]+(?=:)", rb"\d+(\.\d+)?"])
    places = list(re.finditer(pattern, raw))
    for place in sorted(rng.sample(places, min(rng.randint(1, 3), len(places))), key=lambda found: -found.start()):
        raw = raw[: place.start()] + rng.choice(VALUES) + raw[place.end() :]
    return raw


def mutants(repository: Path, count: int) -> list[bytes]:
    """``count`` damaged descriptors, the same each time; small files are drawn more often, since they load faster."""
    rng = random.Random(SEED)
    minimal = (repository / "tests" / "data" / "hw" / "minimal.yaml").read_bytes()
    shipped = [path.read_bytes() for path in shipped_descriptors()]
    choices: list[Callable[[random.Random, bytes], bytes]] = [of_bytes, of_lines, of_values]
    return [rng.choice(choices)(rng, minimal if rng.random() < 0.9 else rng.choice(shipped)) for _ in range(count)]


def refusal(path: Path) -> str:
    """The error of ``path``; "" where it loads."""
    try:
        load_machine(path)
    except DescriptorError as error:
        return str(error)
    return ""


def test_two_thousand_damaged_descriptors_load_or_are_refused(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.yaml"
    loaded, refused = 0, 0
    for raw in mutants(repository, 2000):
        path.write_bytes(raw)
        text = refusal(path)
        assert all(line.startswith(str(path)) for line in text.splitlines())
        loaded, refused = loaded + (text == ""), refused + (text != "")
    # Both must occur often, or the mutations test nothing.
    assert loaded > 50
    assert refused > 1000


def test_damaged_descriptors_leave_the_command_line_with_0_or_2_and_no_traceback(
    repository: Path, tmp_path: Path
) -> None:
    files = []
    for index, raw in enumerate(mutants(repository, 60)):
        files.append(tmp_path / f"damaged{index}.yaml")
        files[-1].write_bytes(raw)
    codes = set()
    commands = [["validate", str(file)] for file in files[:10]] + [["show", str(file)] for file in files[10:20]]
    for arguments in [*commands, ["validate", *map(str, files)], ["list"]]:
        done = subprocess.run(
            [sys.executable, "-m", "soniq_dse", "hw", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            errors="replace",
        )
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        codes.add(done.returncode)
    assert codes == {0, 2}


@pytest.fixture(scope="module")
def file_for_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "text.yaml"


_SCALARS = st.sampled_from([value.decode(errors="replace") for value in VALUES]) | st.text(max_size=12)
_TEXTS = st.lists(st.tuples(st.integers(0, 3), st.text("abcname_", min_size=1, max_size=8), _SCALARS), max_size=8).map(
    lambda rows: "\n".join("  " * indent + f"{key}: {value}" for indent, key, value in rows)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_TEXTS | st.text(max_size=80))
def test_any_text_is_refused_with_an_error(file_for_text: Path, text: str) -> None:
    file_for_text.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(DescriptorError):
        load_hardware(file_for_text)


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_with_an_error(file_for_text: Path, raw: bytes) -> None:
    file_for_text.write_bytes(raw)
    with pytest.raises(DescriptorError):
        load_hardware(file_for_text)
