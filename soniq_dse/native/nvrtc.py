"""CUDA sources to machine code (cubins) and back to assembly, without a GPU: NVRTC and cuobjdump of NVIDIA's wheels.

They are looked for below ``$SONIQ_DSE_CUDA`` (a virtual environment, or the folder with ``lib`` and ``bin``), else
beside this Python's packages.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.native.compiler import cache_folder, sources_sha256

WHEELS = "nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
_FUNCTION = re.compile(r"^\s*Function\s*:\s*(\w+)", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,6}\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_TEXT = re.compile(r"^\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);", re.MULTILINE)
_ADDRESSED = re.compile(
    r"^\s+/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][A-Z0-9_.]*)(?:[^;\n]*?\b(0x[0-9a-f]+))?[^;\n]*;",
    re.MULTILINE,
)
_RESOURCES = re.compile(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def cuda_folder() -> Path:
    """The folder whose ``lib`` holds ``libnvrtc``.

    Raises:
        MissingCapabilityError: there is none; says what to install.
    """
    named = os.environ.get("SONIQ_DSE_CUDA", "")
    roots = [Path(named)] if named else [Path(path) / "nvidia" for path in sys.path if path]
    for root in roots:
        below = ("cu1*", "cuda_nvrtc")  # of wheels for CUDA 13, and for 12
        places = [root, *(place for name in below for place in root.glob(name))]
        places += [place for name in below for place in root.glob(f"lib/python3*/site-packages/nvidia/{name}")]
        for place in places:
            if list(place.glob("lib/libnvrtc.so.1*")):
                return place
    raise MissingCapabilityError(
        f"CUDA compiler: expected libnvrtc {f'below SONIQ_DSE_CUDA={named}' if named else 'beside the packages'}, got "
        f"none; make a virtual environment of its own with pip install {WHEELS}, and set SONIQ_DSE_CUDA to its folder"
    )


def compiler_version() -> str:
    """``NVRTC 13.0``.

    Raises:
        MissingCapabilityError: there is no compiler.
    """
    return _nvrtc(cuda_folder())[1]


def build_cubin(source: Path, architecture: str) -> Path:
    """The cubin of a ``.cu`` file for ``sm_90`` and the like; from the cache where it is there.

    Raises:
        UserError: the compiler rejects the source; the message ends with what it said.
        MissingCapabilityError: there is no compiler.
    """
    library, version = _nvrtc(cuda_folder())
    options = (f"--gpu-architecture={architecture}", f"-I{source.parent}", "-std=c++17")
    key = hashlib.sha256("\0".join((version, architecture, options[2], sources_sha256([source]))).encode()).hexdigest()
    cubin = cache_folder() / f"{source.stem}-{architecture}-{key[:32]}.cubin"
    if not cubin.exists():
        part = cubin.with_suffix(f".{os.getpid()}")
        part.write_bytes(_compiled(library, source, options))
        part.replace(cubin)
    return cubin


def mnemonics(cubin: Path) -> dict[str, list[str]]:
    """The instructions of every function of a cubin, in order, operands left out: ``BMMA.168256.AND.POPC``.

    Raises:
        MissingCapabilityError: there is no disassembler.
        UserError: it does not read the file.
    """
    text = _cuobjdump("-sass", cubin)
    parts = _FUNCTION.split(text)[1:]
    return {name: _INSTRUCTION.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


@dataclass(frozen=True)
class SassLoop:
    """A loop of a function: its instructions in order, operands left out, and the hash of the function's text."""

    mnemonics: tuple[str, ...]
    sass_sha256: str


def sass_loops(cubin: Path, work: Callable[[str], str]) -> dict[str, SassLoop]:
    """Of every function the loop with most instructions that begin with ``work(function)``, the shortest of several.

    Functions without such a loop are left out.

    Raises:
        MissingCapabilityError, UserError: as ``mnemonics``.
    """
    parts = _FUNCTION.split(_cuobjdump("-sass", cubin))[1:]
    found = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        code = [(int(address, 16), mnemonic, target) for address, mnemonic, target in _ADDRESSED.findall(body)]
        loops = [
            tuple(inner for at, inner, _ in code if int(target, 16) <= at <= address)
            for address, mnemonic, target in code
            if mnemonic.startswith("BRA") and target and int(target, 16) < address
        ]
        wanted = work(name)
        n_work = [sum(mnemonic.startswith(wanted) for mnemonic in loop) for loop in loops]
        if any(n_work):
            best = max(range(len(loops)), key=lambda i: (n_work[i], -len(loops[i])))
            text = "\n".join(" ".join(line) for line in _TEXT.findall(body))
            found[name] = SassLoop(loops[best], hashlib.sha256(text.encode()).hexdigest())
    return found


def resources(cubin: Path) -> dict[str, dict[str, int]]:
    """Of every function: ``registers`` and ``local_bytes`` of a thread (stack included), ``shared_bytes`` of a block.

    Raises:
        MissingCapabilityError, UserError: as ``mnemonics``.
    """
    return {
        name: {"registers": int(registers), "shared_bytes": int(shared), "local_bytes": int(stack) + int(local)}
        for name, registers, stack, shared, local in _RESOURCES.findall(_cuobjdump("-res-usage", cubin))
    }


@functools.lru_cache(maxsize=4)
def _nvrtc(folder: Path) -> tuple[ctypes.CDLL, str]:
    for builtins in folder.glob("lib/libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(next(folder.glob("lib/libnvrtc.so.1*"))))
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return library, f"NVRTC {major.value}.{minor.value}"


def _compiled(library: ctypes.CDLL, source: Path, options: Sequence[str]) -> bytes:
    program = ctypes.c_void_p()
    text, name = source.read_bytes(), source.name.encode()
    library.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None)
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), array)
    try:
        if failed:
            log = _taken(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
            lines = [line for line in log.splitlines() if "error" in line] or log.splitlines()
            raise UserError(
                f"{source.name}: expected NVRTC to compile it ({options[0]}), got\n" + "\n".join(lines[:10])
            )
        return _taken(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _taken(size_of: Any, take: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    take(program, buffer)
    return buffer.raw


def _cuobjdump(option: str, cubin: Path) -> str:
    folder = cuda_folder() / "bin"
    program = folder / "cuobjdump"
    if not program.exists():
        raise MissingCapabilityError(f"CUDA disassembler: expected {program}, got none; pip install {WHEELS}")
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [str(program), option, str(cubin)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    if done.returncode != 0:
        raise UserError(f"{cubin.name}: expected a cubin, got: {(done.stderr or done.stdout)[:400]}")
    return done.stdout
