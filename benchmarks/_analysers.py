"""Other models of a core, as external programs: llvm-mca and OSACA on the loops of our kernels."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soniq_dse.records.cost import Host, HotLoop

ITERATIONS = 200
"""Passes that llvm-mca simulates: its first ones fill the pipeline."""
_LABEL = "kernel_loop"
_CORES = {
    ("AuthenticAMD", 23): ("znver2", "ZEN2"),
    ("AuthenticAMD", 25): ("znver3", "ZEN3"),
    ("AuthenticAMD", 26): ("znver5", None),
}
"""(vendor, family) -> the core's name for llvm-mca and for OSACA; those with AVX-512 of family 25 are Zen 4."""
_INTEL = (
    ("amx_tile", "sapphirerapids", "SPR"),
    ("avx512vbmi2", "icelake-server", "ICX"),
    ("avx512f", "skylake-avx512", "SKX"),
    ("avx2", "skylake", "HSW"),
)
"""(feature, name for llvm-mca, name for OSACA) of Intel's cores, newest first."""


@dataclass(frozen=True)
class Analyser:
    """A program that says how many cycles a pass takes; ``cycles`` gives None where it gives up."""

    name: str
    core: str
    cycles: Callable[[HotLoop], float | None]


def analysers(host: Host) -> tuple[list[Analyser], list[str]]:
    """Those that are installed and know the host's core, and what is missing."""
    mca_core, osaca_core = _cores(host)
    mca, assembler = shutil.which("llvm-mca-19"), shutil.which("llvm-mc-19")
    osaca = shutil.which("osaca") or shutil.which("osaca", path=str(Path(sys.executable).parent))
    found, missing = [], []
    if mca and mca_core:
        found.append(Analyser("llvm-mca 19", mca_core, lambda loop: _mca(mca, mca_core, loop)))
    else:
        missing.append("llvm-mca 19 (Debian package llvm-19)")
    if osaca and assembler and osaca_core:
        found.append(Analyser("OSACA", osaca_core, lambda loop: _osaca(osaca, assembler, osaca_core, loop)))
    else:
        missing.append("OSACA (pip install osaca, and llvm-mc-19 to turn Intel's syntax into AT&T's)")
    return found, missing


def _cores(host: Host) -> tuple[str | None, str | None]:
    if host.vendor == "GenuineIntel":
        return next(((mca, osaca) for feature, mca, osaca in _INTEL if feature in host.features), (None, None))
    if host.family == 25 and "avx512f" in host.features:
        return "znver4", "ZEN4"
    return _CORES.get((host.vendor, host.family), (None, None))


def assembly(loop: HotLoop) -> str:
    """The loop as a file of Intel syntax; every jump goes back to its start."""
    lines = [f"{i.mnemonic} {_LABEL}" if i.mnemonic[0] == "j" else _plain(i.text) for i in loop.instructions]
    return "\n".join([".intel_syntax noprefix", f"{_LABEL}:", *lines, ""])


def _plain(text: str) -> str:
    """objdump's text without what an assembler does not read: the symbol behind a rip-relative address."""
    return re.sub(r"\s*<[^>]*>", "", re.sub(r"\s*#.*", "", text))


def _mca(program: str, core: str, loop: HotLoop) -> float | None:
    said = _run(
        [program, f"-mcpu={core}", f"-iterations={ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"], loop
    )
    total = re.search(r"^Total Cycles:\s+(\d+)", said, re.MULTILINE)
    return int(total[1]) / ITERATIONS if total else None


def _osaca(program: str, assembler: str, core: str, loop: HotLoop) -> float | None:
    """The busiest port or the longest loop-carried dependency, whichever is more, of the instructions that it knows.

    Its own total fails where it lacks an instruction, so both are read from the table that it prints.
    """
    translated = _run([assembler, "-x86-asm-syntax=intel", "-output-asm-variant=0"], loop)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.s"
        path.write_text("\n".join(line for line in translated.splitlines() if not line.strip().startswith(".")) + "\n")
        said = _run([program, "--arch", core, str(path)])
    pressure: dict[int, float] = {}
    carried, rows = 0.0, 0
    for line in said.splitlines():
        found = re.match(r"^\s*\d+ \|(.*)\|\|(.*?)\|(.*?)\|", line)
        if not found:
            continue
        rows += 1
        for port, cell in enumerate(re.split(r"\||-", found[1])):
            pressure[port] = pressure.get(port, 0.0) + _number(cell)
        carried += _number(found[3])
    return max(*pressure.values(), carried) if rows else None


def _number(cell: str) -> float:
    found = re.search(r"\d+(\.\d+)?", cell)
    return float(found[0]) if found else 0.0


def _run(command: list[str], loop: HotLoop | None = None) -> str:
    text = assembly(loop) if loop else None
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60).stdout
    except subprocess.TimeoutExpired:
        return ""
