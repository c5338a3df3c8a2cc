"""A folder of C++ in a zip archive, that ``g++ -O3`` alone compiles: weights, plan, and the runtime's own sources.

Layer driver, executor and kernels are the files of this program, unchanged below ``soniq/``. Beside them lie small
files that include one each with the instruction set and the rules of rounding it is built with, so that no flag is
needed and no rule of contraction that ``g++`` is given can change a bit of the results.
"""

from __future__ import annotations

import io
import platform
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soniq_dse.errors import MissingCapabilityError, UserError
from soniq_dse.export import Base, Design, save
from soniq_dse.export.static_plan import StaticPlan, static_plan
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.host import detect_host, missing_features
from soniq_dse.kernels.catalog import ARM_FEATURES, CPU_FOLDER
from soniq_dse.kernels.library import isa_flags
from soniq_dse.native.compiler import host_compiler, with_headers
from soniq_dse.records.network import InputNode
from soniq_dse.runtime.executor import DEPTHWISE, DRIVER_SOURCES, driver_flags
from soniq_dse.runtime.planner import plan_network

BUNDLE_FOLDER = Path(__file__).with_name("bundle")
LINE_BYTES = 32
"""Bytes of weights on a line of C++."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_OPTIMIZE = '#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-trapping-math")'


class Zip(Base):
    """C++17 for GCC 11 or later; one sample a run, in the calling thread."""

    title = "C++ sources, self-contained"

    def write(self, design: Design, target: Path) -> tuple[str, ...]:
        """See ``Base``."""
        _expect_packable(design.features)
        plan = plan_network(design.network, design.arrays, batch=1, features=design.features, choices=design.choices)
        fixed = static_plan(plan, design.features)
        stem = target.stem
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in sorted(_files(design, fixed, stem).items()):
                file.writestr(zipfile.ZipInfo(f"{stem}/{name}", _EPOCH), text, zipfile.ZIP_DEFLATED)
        save(target, archive.getvalue())
        needed = ", ".join(_features(fixed, design.features))
        return (f"runs on processors with {needed}" if needed else "runs on any processor",)

    def outputs(self, path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
        """See ``Base``; compiled by ``g++ -O3`` and run."""
        with tempfile.TemporaryDirectory() as folder:
            program = compiled(path, Path(folder), [host_compiler().path, "-O3"])
            return run_program([str(program)], x, path)


def _expect_packable(features: Sequence[str]) -> None:
    """Weights are packed by the kernels themselves: natively, or for Arm by portable intrinsics."""
    lacking = missing_features([name for name in features if plain(name) not in ARM_FEATURES], detect_host())
    on_arm = platform.machine() == "aarch64"
    for_arm = any(plain(name) in ARM_FEATURES for name in features)
    if lacking and not (for_arm and not on_arm):
        raise MissingCapabilityError(
            f"C++ for another processor: expected one of this machine's features, got {', '.join(lacking[:5])}; "
            "export on such a machine, or plain C++ by --portable"
        )


def compiled(path: Path, folder: Path, command: Sequence[str]) -> Path:
    """The program of the archive at ``path``, built in ``folder`` by a compiler and its flags.

    Raises:
        UserError: it does not compile.
    """
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    program = folder / "program"
    sources = sorted(str(source) for source in folder.glob("*/*.cpp"))
    done = subprocess.run([*command, *sources, "-o", str(program)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{path}: expected {command[0]} to compile it, got:\n{done.stderr[:2000]}")
    return program


def run_program(command: Sequence[str], x: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """What the program of the archive at ``path`` gives for ``x [n, ...]``.

    Raises:
        UserError: it fails.
    """
    samples = np.ascontiguousarray(x, np.int32 if np.issubdtype(x.dtype, np.integer) else np.float32)
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"{command[-1]}: expected exit code 0, got {done.returncode}: {done.stderr.decode()[:400]}")
    return np.frombuffer(done.stdout, np.float32).reshape(len(x), *_out_shape(path))


def _out_shape(path: Path) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/soniq_net.h"))
        found = re.search(r"numbers of its output: ([\d x]+)", file.read(name).decode())
    assert found  # _header wrote it
    return tuple(map(int, found[1].split(" x ")))


def _files(design: Design, fixed: StaticPlan, stem: str) -> dict[str, str]:
    """Name -> text of every file of the folder."""
    files = {path.name: path.read_text(encoding="utf-8") for path in BUNDLE_FOLDER.glob("*.cpp")}
    files |= {
        "README.md": _readme(design, fixed, stem),
        "plan.cpp": fixed.source,
        "soniq_net.h": _header(design, fixed, stem),
        "weights.cpp": "".join(_weights(fixed.data)),
    }
    flags = driver_flags(design.features)
    before = {"executor.cpp": "#define soniq_run soniq_run_steps\n"}  # soniq_run is the network's own function
    if "-mavx512vnni" not in flags:
        before["depthwise.cpp"] = "#define SONIQ_DEPTHWISE_PAIRS\n"
    for path in DRIVER_SOURCES:
        files[f"driver_{path.name}"] = _unit(flags, path, before.get(path.name, ""))
    kernels = [spec for spec in fixed.kernels if spec != DEPTHWISE]
    sources = [CPU_FOLDER / Path(spec.path).name for spec in kernels]
    for number, (spec, path) in enumerate(zip(kernels, sources, strict=True)):
        select = f"#define SONIQ_SELECT\n#define SONIQ_SELECT_{spec.symbol} ,\n"
        files[f"kernel_{number}.cpp"] = _unit(isa_flags(spec.features), path, select)
    for path in with_headers([*DRIVER_SOURCES, *sources], [CPU_FOLDER]):
        files[f"soniq/{path.name}"] = path.read_text(encoding="utf-8")
    return files


def _unit(flags: Iterable[str], path: Path, before: str) -> str:
    """A file that builds ``path`` for the instruction set of ``flags``.

    GCC 12 reads a C++ file to its end before it heeds the pragma, so that macros of the set are defined here.
    """
    targets = [flag.removeprefix("-m") for flag in flags]
    names = [name for name in targets if "=" not in name]
    macros = [f"__{name.upper()}__" for name in (*names, *(["avx2"] if "avx512f" in names else []))]
    defined = "".join(f"#ifndef {macro}\n#define {macro} 1\n#endif\n" for macro in macros)
    target = f'#pragma GCC target("{",".join(targets)}")\n{defined}' if targets else ""
    return f'{target}{_OPTIMIZE}\n{before}#include "soniq/{path.name}"\n'


def _features(fixed: StaticPlan, features: Sequence[str]) -> list[str]:
    """What the processor must have: of the kernels and of the drivers."""
    drivers = [flag.removeprefix("-m") for flag in driver_flags(features) if "=" not in flag and "-width" not in flag]
    return sorted({*drivers, *(feature for spec in fixed.kernels for feature in spec.features)})


def _header(design: Design, fixed: StaticPlan, stem: str) -> str:
    first, last = design.network.nodes[0].shape, design.network.nodes[-1].shape
    n_tokens = _n_tokens(design)
    what = f"token numbers below {n_tokens}" if n_tokens else "fp32"
    needed = [name for name in _features(fixed, design.features) if name not in ARM_FEATURES]
    supported = " && ".join(f'__builtin_cpu_supports("{name}")' for name in needed) or "1"
    return f"""// {stem}: a quantised network as one function.
#pragma once
#include <stdint.h>

#define SONIQ_IN_SIZE {prod(first)}  // numbers of a sample: {" x ".join(map(str, first))}, channels first
#define SONIQ_N_TOKENS {n_tokens}  // token numbers are below this; 0: the input is fp32
#define SONIQ_OUT_SIZE {prod(last)}  // numbers of its output: {" x ".join(map(str, last))}
#define SONIQ_IS_SUPPORTED ({supported})

enum {{
  SONIQ_OK = 0,
  SONIQ_BAD_ARGUMENT = 1,       // a null pointer, or fewer than no samples
  SONIQ_BAD_INPUT = 2,          // the input holds an infinity, NaN or no token number; nothing was computed
  SONIQ_NO_SUCH_PROCESSOR = 3,  // this one lacks an instruction set that the kernels need
  SONIQ_NO_MEMORY = 4,
}};

typedef {"int32_t" if n_tokens else "float"} soniq_in;

// out[samples][SONIQ_OUT_SIZE], fp32, for in[samples][SONIQ_IN_SIZE], {what}. Gives SONIQ_OK or what is wrong. It uses
// static buffers of {fixed.memory_bytes} bytes: one caller at a time.
extern "C" int soniq_run(const soniq_in* in, float* out, int64_t samples);
"""


def _n_tokens(design: Design) -> int:
    first = design.network.nodes[0]
    return (first.n_tokens or 0) if isinstance(first, InputNode) else 0


def _readme(design: Design, fixed: StaticPlan, stem: str) -> str:
    needed = ", ".join(_features(fixed, design.features)) or "nothing: plain C++"
    kernels = "\n".join(f"- `{spec.symbol}`" for spec in fixed.kernels)
    return f"""# {stem}

    g++ -O3 *.cpp -o {stem}
    ./{stem} < samples.{"i32" if _n_tokens(design) else "f32"} > outputs.f32

GCC 11 or later; an older C library wants `-pthread`. No other flag is needed: every file names its
instruction set. The processor must have: {needed}.

`soniq_net.h` documents `soniq_run`; leave out `main.cpp` to link it into a program of yours. Outputs
are those of the golden arithmetic of soniq-dse, bit for bit. Kernels:

{kernels}
"""


def _weights(data: bytes) -> Iterable[str]:
    """The bytes as one literal: compilers read that many times faster than a list of numbers."""
    yield "// Packed weights, scales, tables: what plan.cpp points to.\n"
    yield "extern const unsigned char soniq_data[];\n"
    yield f"alignas(64) const unsigned char soniq_data[{len(data) + 1}] ="
    for at in range(0, max(len(data), 1), LINE_BYTES):
        yield '\n  "' + "".join(f"\\{byte:03o}" for byte in data[at : at + LINE_BYTES]) + '"'
    yield ";\n"
