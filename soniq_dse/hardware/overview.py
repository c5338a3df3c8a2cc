"""The head of a descriptor: what a list of many shows, read without the long tables below it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError

from soniq_dse.hardware.document import DescriptorError, Document, parse_document, read_document, read_text
from soniq_dse.hardware.load import EXTENDS, read_resolved
from soniq_dse.hardware.schema_errors import explain
from soniq_dse.records.base import Record
from soniq_dse.records.gpu import Architecture
from soniq_dse.records.hardware import Figure, Name, ProcessorMatch, SimdWidth


class GpuHead(Record):
    """The fields of ``GpuModel`` that tell GPUs apart."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["gpu"]
    architecture: Architecture
    matches: tuple[str, ...] = ()
    multiprocessors: Figure
    clock_ghz: Figure


class DescriptorHead(Record):
    """The fields of ``HardwareModel`` that tell machines apart."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=200)]
    isa: Literal["x86_64", "aarch64", "riscv64"]
    features: tuple[str, ...]
    matches: tuple[ProcessorMatch, ...] = ()
    cores: PositiveInt
    clock_ghz: Figure
    simd: Annotated[tuple[SimdWidth, ...], Field(min_length=1)]


_FIELDS = frozenset(DescriptorHead.model_fields) | frozenset(GpuHead.model_fields)
_TOP_LEVEL_KEY = re.compile(r"([A-Za-z_]+):(\s|$)")


def read_head(path: Path) -> DescriptorHead | GpuHead:
    """The head of the descriptor ``path``. What stands below it is not checked: that is ``load_hardware``.

    Raises:
        DescriptorError: the file cannot be read, or its head is not valid.
    """
    document = read_resolved(path, read=_read_head_lines)
    record: type[DescriptorHead | GpuHead] = GpuHead if document.value.get("kind") == "gpu" else DescriptorHead
    document.value = {key: value for key, value in document.value.items() if key in record.model_fields}
    try:
        return record.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        explain(error, document)
        raise DescriptorError(document.problems) from error


def _read_head_lines(path: Path) -> Document:
    """``path`` with the lines of other fields left blank, so that places stay true; all of it where that fails."""
    text = read_text(path)
    kept, wanted = [], True
    for line in text.split("\n"):
        key = _TOP_LEVEL_KEY.match(line)
        wanted = key[1] in _FIELDS or key[1] == EXTENDS if key else wanted
        kept.append(line if wanted else "")
    try:
        document = parse_document(str(path), "\n".join(kept))
    except DescriptorError:
        return read_document(path)
    needed = {"name", "multiprocessors" if document.value.get("kind") == "gpu" else "simd"}
    return document if EXTENDS in document.value or document.value.keys() >= needed else read_document(path)
