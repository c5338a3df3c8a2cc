"""A first descriptor for a new machine: a copy of the nearest one, honest about which figures are only copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soniq_dse.hardware.document import parse_document
from soniq_dse.hardware.host import match_host, missing_features
from soniq_dse.hardware.load import load_hardware, validated
from soniq_dse.hardware.writing import check_name, dumped, editable_tree
from soniq_dse.records.cost import Host
from soniq_dse.records.hardware import HardwareModel

_HEADER = """\
# {title}
# Started from the descriptor {source} on {processor} ({vendor} family {family} model {model}).
# {origin}
# To make it yours: set the title, clock_ghz, cores and cache sizes from the data sheet of the machine, give the figures
# that you know their kind (vendor, measured, derived, assumed) and a key of `sources`, take away instructions that the
# machine lacks, add those that it has: the native bit-widths follow from the instructions and the recipes.
# Check it with `soniq-dse hw validate {file}`, see what follows with `soniq-dse hw show ./{file}`.
"""


def start_descriptor(new: Path, source: Path, host: Host, title: str | None = None) -> str:
    """The text of a valid descriptor ``new`` for ``host``, copied from ``source`` with its comments.

    Where ``source`` does not match the host, every copied figure becomes ``assumed`` and loses its statistics.

    Raises:
        UserError: the name of ``new`` cannot name a machine.
        DescriptorError: ``source`` is not valid.
    """
    check_name(new)
    model = load_hardware(source)
    foreign = not match_host(model, host)[0]
    tree = editable_tree(source)
    tree["name"] = new.stem
    tree["title"] = title or f"{host.processor} (started from {model.name})"
    tree["cores"] = host.cores
    tree["matches"] = [_match(model, host)]
    if foreign:
        _mark_assumed(tree)
    text = _header(new, model, host, tree["title"], foreign=foreign) + dumped(tree)
    validated(parse_document(str(new), text), HardwareModel)
    return text


def _match(model: HardwareModel, host: Host) -> dict[str, Any]:
    needed = dict.fromkeys(feature for simd in model.simd for feature in simd.features)
    lacking = missing_features(needed, host)
    return {
        "vendor": host.vendor,
        "family": host.family,
        "models": [host.model],
        "features": [feature for feature in needed if feature not in lacking],
    }


def _mark_assumed(node: Any) -> None:
    """Turn every figure below ``node`` into an assumed one, in place."""
    if isinstance(node, list):
        for entry in node:
            _mark_assumed(entry)
    if not isinstance(node, dict):
        return
    if {"value", "kind", "source"} <= node.keys():
        node["kind"] = "assumed"
        for statistic in ("samples", "spread", "date"):
            node.pop(statistic, None)
    if "ports_kind" in node:
        node["ports_kind"] = "assumed"
    for value in node.values():
        _mark_assumed(value)


def _header(new: Path, model: HardwareModel, host: Host, title: str, *, foreign: bool) -> str:
    lacking = missing_features(model.features, host)
    origin = (
        "Its figures belong to another machine: here each is marked `kind: assumed` until you replace it."
        if foreign
        else "That descriptor matches this processor: its figures are kept as they are."
    )
    if lacking:
        origin += f"\n# This processor lacks: {', '.join(lacking)}. Take them out, with what needs them."
    text = _HEADER.format(
        title=title, source=model.name, processor=host.processor, vendor=host.vendor, family=host.family,
        model=host.model, origin=origin, file=new.name,
    )  # fmt: skip
    return "".join(line if line.isprintable() or line.endswith("\n") else "" for line in text.splitlines(keepends=True))
