"""YAML -> HardwareModel: every error of a file at once, each at its line, with the nearest valid choice.

A descriptor may name another one by the top-level key ``extends`` and then holds only what differs. The two merge as a
JSON merge patch does (RFC 7386): mappings merge, lists and scalars replace, null removes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from soniq_dse.errors import UserError
from soniq_dse.hardware.checks import check
from soniq_dse.hardware.document import DescriptorError, Document, FieldPath, Problem, read_document
from soniq_dse.hardware.find import find_descriptor
from soniq_dse.hardware.schema_errors import explain
from soniq_dse.records.gpu import GpuModel
from soniq_dse.records.hardware import HardwareModel

__all__ = ["DescriptorError", "Problem", "load_hardware", "load_machine", "read_resolved"]

EXTENDS = "extends"
AnyMachine = TypeVar("AnyMachine", bound=HardwareModel | GpuModel)


def load_machine(spec: str | Path) -> HardwareModel | GpuModel:
    """The machine described by ``spec``: a path, or a name found by ``find_descriptor``.

    Raises:
        UserError: there is no such descriptor.
        DescriptorError: it is not valid; the text holds all its errors, one a line
            (``file:line:column field: expected ..., got ...; nearest valid choice ...``).
    """
    document = read_resolved(find_descriptor(str(spec)))
    return validated(document, GpuModel) if document.value.get("kind") == "gpu" else validated(document, HardwareModel)


def load_hardware(spec: str | Path) -> HardwareModel:
    """``load_machine`` for what only processors do.

    Raises:
        UserError, DescriptorError: as ``load_machine``, or it describes a GPU.
    """
    found = load_machine(spec)
    if isinstance(found, GpuModel):
        raise UserError(f"{spec}: expected a descriptor of kind cpu, got kind gpu ({found.title})")
    return found


def validated(document: Document, record: type[AnyMachine]) -> AnyMachine:
    """The machine that ``document`` describes.

    Raises:
        DescriptorError: it breaks the schema or a rule; holds all errors.
    """
    model = None
    try:
        # Strict JSON mode: lists become tuples, but text never becomes a number, nor true a 1.
        model = record.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        explain(error, document, record)
    check(document)
    if model is None or document.problems:
        raise DescriptorError(_in_order(document.problems))
    return cast(AnyMachine, model)


def read_resolved(
    path: Path, read: Callable[[Path], Document] = read_document, chain: tuple[Path, ...] = ()
) -> Document:
    """The document of ``path`` merged over those it extends, each read by ``read``; schema not yet checked.

    ``chain`` holds the files that led here, for cycles.

    Raises:
        DescriptorError: a file of the chain cannot be read, does not exist, or leads back to itself.
    """
    document = read(path)
    if EXTENDS not in document.value:
        return document
    chain = (*chain, path.resolve())
    parent = _parent(document, path)
    if parent.resolve() in chain:
        loop = " -> ".join(file.stem for file in (*chain[chain.index(parent.resolve()) :], parent))
        document.add((EXTENDS,), f"expected a descriptor that does not lead back here, got the cycle {loop}")
        raise DescriptorError(document.problems)
    if len(chain) > 16:
        document.add((EXTENDS,), "expected at most 16 descriptors in a chain, got more")
        raise DescriptorError(document.problems)
    return _merged(read_resolved(parent, read, chain), document)


def _parent(document: Document, path: Path) -> Path:
    name = document.value.pop(EXTENDS)
    if not isinstance(name, str):
        document.add((EXTENDS,), f"expected the name of a descriptor, got {name!r}")
        raise DescriptorError(document.problems)
    try:
        return find_descriptor(name, folder=path.parent, besides=path)
    except UserError as error:
        document.add((EXTENDS,), str(error).removeprefix("hardware descriptor: "))
        raise DescriptorError(document.problems) from error


def _merged(base: Document, over: Document) -> Document:
    """``over`` applied to ``base``; every place still points into the file that its value came from."""
    replaced: set[FieldPath] = set()
    value = _patch(base.value, over.value, (), replaced)
    result = Document(over.file, value, problems=[*base.problems, *over.problems])
    for name in ("keys", "values"):
        inherited = getattr(base, name)
        kept = {
            path: place
            for path, place in inherited.items()
            if not any(path[:length] in replaced for length in range(1, len(path) + 1))
        }
        setattr(result, name, kept | getattr(over, name))
    return result


def _patch(base: Any, over: Any, path: FieldPath, replaced: set[FieldPath]) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        replaced.add(path)
        return over
    result = dict(base)
    for key, value in over.items():
        inner = (*path, key)
        if value is None and key in base:
            replaced.add(inner)
            del result[key]
        elif key in base:
            result[key] = _patch(base[key], value, inner, replaced)
        else:
            result[key] = value
    return result


def _in_order(problems: list[Problem]) -> list[Problem]:
    """By file, line and column, each once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.place, problem.field))
