"""``soniq-dse doctor``: what this machine can do, and how to mend what it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Callable

import click

from soniq_dse.cli._common import console, json_option, print_json, table
from soniq_dse.errors import UserError

OK, WARNING, FAILED = "ok", "warning", "failed"
Finding = tuple[str, str, str]
"""(status, what was found, how to mend it)."""


def _python() -> Finding:
    return OK, f"Python {platform.python_version()}, soniq-dse {importlib.metadata.version('soniq-dse')}", ""


def _torch() -> Finding:
    try:
        return OK, f"torch {importlib.metadata.version('torch')}", ""
    except importlib.metadata.PackageNotFoundError:
        return FAILED, "torch is not installed", "pip install -c constraints.txt torch"


def _compiler() -> Finding:
    from soniq_dse.native.compiler import host_compiler

    try:
        compiler = host_compiler()
    except UserError as error:
        return FAILED, str(error), "install g++ (Debian: apt-get install g++); predictions work without it"
    return OK, f"{compiler.path}: {compiler.version}", ""


def _disassembler() -> Finding:
    found = shutil.which("objdump")
    if found:
        return OK, found, ""
    return WARNING, "objdump is not installed", "apt-get install binutils; only needed to keep new loops"


def _processor() -> Finding:
    from soniq_dse.hardware.host import detect_host

    host = detect_host()
    return OK, f"{host.processor} ({host.vendor} family {host.family} model {host.model}), {host.cores} cores", ""


def _descriptor() -> Finding:
    from soniq_dse.hardware.host import default_descriptor, detect_host, match_host, own_descriptor_command
    from soniq_dse.hardware.load import load_hardware

    host = detect_host()
    path, reason = default_descriptor(host)
    if match_host(load_hardware(path), host)[0]:
        return OK, f"{path.stem}: {reason}", ""
    return WARNING, reason, f"{own_descriptor_command(host)} writes a descriptor of this processor"


def _kernels() -> Finding:
    from soniq_dse.hardware.host import detect_host, missing_features
    from soniq_dse.kernels.catalog import catalog

    host, kernels = detect_host(), catalog()
    runnable = [kernel for kernel in kernels if not missing_features(kernel.features, host)]
    simd = [kernel for kernel in runnable if kernel.features]
    text = f"{len(runnable)} of {len(kernels)} kernels run here, {len(simd)} of them vectorised"
    if simd:
        return OK, text, ""
    return WARNING, text, "this processor lacks the vector instructions: the scalar kernels run, slowly"


def _cache() -> Finding:
    from soniq_dse.native.compiler import cache_folder

    folder = cache_folder()
    return OK, f"compiled kernels are kept in {folder}", ""


def _gpu() -> Finding:
    if importlib.util.find_spec("cupy") is None:
        return WARNING, "CuPy is not installed: no GPU kernels", "pip install 'soniq-dse[gpu]' on a machine with a GPU"
    return OK, f"CuPy {importlib.metadata.version('cupy-cuda13x')}", ""


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "torch": _torch,
    "compiler": _compiler,
    "disassembler": _disassembler,
    "processor": _processor,
    "descriptor": _descriptor,
    "kernels": _kernels,
    "cache": _cache,
    "gpu": _gpu,
}


@click.command(
    epilog="Exit code 0: all needed is here (warnings allowed); 3: something needed is missing.\n\n"
    "Example:  soniq-dse doctor"
)
@json_option
def command(as_json: bool) -> None:
    """Check this machine: Python, compiler, processor, kernels, caches."""
    findings = {}
    for name, check in CHECKS.items():
        try:
            findings[name] = check()
        except (UserError, OSError) as error:
            findings[name] = (FAILED, str(error), "")
    if as_json:
        keys = ("status", "found", "remedy")
        print_json({name: dict(zip(keys, finding, strict=True)) for name, finding in findings.items()})
    else:
        columns = {"check": "left", "status": "left", "found": "left", "how to mend it": "left"}
        console().print(table("", columns, [[name, *finding] for name, finding in findings.items()]))
    if any(status == FAILED for status, _, _ in findings.values()):
        raise SystemExit(3)
