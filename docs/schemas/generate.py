"""Write the JSON Schemas of the files that users read and write.

``python docs/schemas/generate.py`` writes them, with ``--check`` it only compares. Editors check a descriptor as it is
typed where its first line is ``# yaml-language-server: $schema=PATH/hardware.schema.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from soniq_dse.records.base import Record
from soniq_dse.records.front import ParetoFront, Report
from soniq_dse.records.gpu import GpuModel
from soniq_dse.records.hardware import HardwareModel
from soniq_dse.records.palette import Palette
from soniq_dse.records.workload import Layer

FOLDER = Path(__file__).parent


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> JSON Schema."""
    read = {"palette": Palette, "layers": list[Layer]}
    written = {"front": ParetoFront, "report": Report}
    found = {"hardware": _descriptor(HardwareModel), "gpu": _descriptor(GpuModel)}
    found |= {name: TypeAdapter(kind).json_schema(mode="validation") for name, kind in read.items()}
    found |= {name: TypeAdapter(kind).json_schema(mode="serialization") for name, kind in written.items()}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {f"{name}.schema.json": dialect | schema for name, schema in found.items()}


def _descriptor(record: type[Record]) -> dict[str, Any]:
    """The schema of a descriptor file: the record, or ``extends`` and any part of it."""
    schema = record.model_json_schema()
    extends = {"type": "string", "description": "The descriptor that this one overrides, by path or name."}
    schema["properties"] = {"extends": extends} | schema["properties"]
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema.pop("required")}]
    return schema


def as_text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def stale() -> list[str]:
    """Files that differ from what would be written, and schemas that nothing writes any more."""
    wanted = {name: as_text(schema) for name, schema in schemas().items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.schema.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(stale())}; run python docs/schemas/generate.py" if stale() else 0)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(as_text(schema), encoding="utf-8")
