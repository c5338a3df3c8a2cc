"""A complete descriptor of this machine from a survey of it and a base descriptor for what cannot be measured.

What the survey read becomes ``measured``, with samples, spread, date and a source that names host and compiler. Cache
sizes come from the operating system. Ports come from ``hardware/portmap.py``. The rest is the base's: as it stands
where the base describes this processor, else ``assumed``, with a note that says whose it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from soniq_dse.errors import UserError
from soniq_dse.hardware.document import DescriptorError, parse_document
from soniq_dse.hardware.features import plain
from soniq_dse.hardware.host import match_host, missing_features
from soniq_dse.hardware.load import validated
from soniq_dse.hardware.microbench import Reading
from soniq_dse.hardware.portmap import PortMap, judged_ports
from soniq_dse.hardware.render import source_keys
from soniq_dse.hardware.survey import Survey
from soniq_dse.hardware.window import Window
from soniq_dse.hardware.writing import dumped, styled, tidied
from soniq_dse.records.cost import Host
from soniq_dse.records.hardware import Figure, HardwareModel, InstructionTiming, Source

FieldKey = tuple[str | int, ...]
"""Where a figure stands: ``("instructions", "vpaddd", "widths", 512, "latency_cycles")``, caches by their name."""

_REGISTERS = {"avx512f": 32, "avx2": 16}
"""Vector registers by the feature that a width needs."""
_HEADER = """\
# Measured by `soniq-dse hw calibrate` on {date}, on {processor} ({vendor} family {family} model {model}).
# What it could not measure comes from the descriptor {base}. `soniq-dse hw calibrate --update FILE` measures again.
{verdicts}"""


@dataclass(frozen=True)
class Calibration:
    """The descriptor, the verdicts on its port map, and the measured figures (by path) that never became steady."""

    hardware: HardwareModel
    text: str
    verdicts: tuple[str, ...]
    unsteady: tuple[str, ...]


def calibrated(base: HardwareModel, survey: Survey, name: str, title: str | None = None) -> Calibration:
    """The machine of ``survey`` as a descriptor called ``name``.

    Raises:
        UserError: the readings contradict one another, as on a machine that is too busy to be measured.
    """
    ports = judged_ports(base, survey)
    own = match_host(base, survey.host)[0]
    sources = dict(base.sources)
    measured_key = add_source(sources, "calibration", calibration_source(survey))
    ports_key = add_source(sources, "pair_tests", _ports_source(survey, ports))
    tree = base.model_dump(mode="json")
    if not own:
        _assume(tree, base.name)
    figures = measured_figures(survey, measured_key)
    tree |= _identity(base, survey, name, title)
    _set_instructions(tree, base, survey, ports, ports_key, own=own)
    _set_caches(tree, survey, measured_key)
    if survey.window:
        tree["store_forwarding"] = {}
    for key, figure in figures.items():
        if key[0] != "branches" or tree.get("branches"):  # how far back a predictor looks is not measured
            _set(tree, key, figure.model_dump())
    tree["ports"] = [port.model_dump() for port in ports.ports if port.name in set(_used_ports(tree))]
    tree["sources"] = {key: source.model_dump() for key, source in sources.items()}
    used = set(source_keys(tree))
    tree["sources"] = {key: source for key, source in tree["sources"].items() if key in used}
    text = _header(base, survey, ports) + dumped(styled(tidied(tree)))
    try:
        hardware = validated(parse_document(f"{name}.yaml", text), HardwareModel)
    except DescriptorError as error:
        raise UserError(f"calibration: expected readings that agree, got\n{error}\nis the machine too busy?") from error
    return Calibration(hardware, text, ports.verdicts, unsteady_figures(survey))


def readings(survey: Survey) -> Iterator[tuple[FieldKey, Reading, str | None]]:
    """Every reading with the place of its figure and a note."""
    yield ("clock_ghz",), survey.clock_ghz, "while one thread adds"
    for probe, reading in survey.instructions.items():
        place = ("instructions", probe.key, "widths", probe.width_bits)
        yield (*place, "reciprocal_throughput_cycles"), reading.reciprocal_throughput_cycles, None
        if reading.latency_cycles:
            yield (*place, "latency_cycles"), reading.latency_cycles, None
    width = f"{survey.width_bits}-bit loads in order"
    for cache in survey.caches:
        name, size = f"L{cache.geometry.level}", f"{cache.working_set_bytes >> 10} KiB"
        yield ("caches", name, "read_bytes_per_cycle"), cache.reading.read_bytes_per_cycle, f"{width}, {size}"
        yield ("caches", name, "latency_cycles"), cache.reading.latency_cycles, f"random order over {size}"
        if cache.usable_share:
            text = "the largest eighth that is read at its own cost more than at that of memory"
            yield ("caches", name, "usable_share"), cache.usable_share, text
    if survey.dram:
        dram, size = survey.dram, f"{survey.dram.working_set_bytes >> 20} MiB"
        yield ("memory", "read_gb_per_s_one_core"), dram.one_core_gb_per_s, f"{width}, {size}"
        cores = f"{width}, {size} over {dram.cores} threads, by the CPU time of each"
        yield ("memory", "read_gb_per_s_all_cores"), dram.all_cores_gb_per_s, cores
        yield ("memory", "latency_ns"), dram.latency_ns, f"random order over {size}, page walks included"
    yield ("overhead", "call_ns"), survey.call_ns, "an indirect call with nine arguments"
    if survey.window:
        yield from _window_readings(survey.window)


def _window_readings(window: Window) -> Iterator[tuple[FieldKey, Reading, str | None]]:
    yield (
        ("issue_width",),
        window.issue_width,
        "moves, or additions with vector logic and loads, a cycle, to the nearest whole number",
    )
    if window.reorder_buffer_entries:
        text = "nop between two chains of square roots that no longer run side by side; give or take 4"
        yield ("reorder_buffer_entries",), window.reorder_buffer_entries, text
    if window.scheduler_entries:
        text = "vector additions waiting for a chain of square roots, before another runs beside it; give or take 4"
        yield ("scheduler_entries",), window.scheduler_entries, text
    text = "stored and loaded again in turns"
    yield ("store_forwarding", "vector_cycles"), window.vector_forwarding_cycles, f"a vector {text}"
    yield (
        ("store_forwarding", "scalar_cycles"),
        window.scalar_forwarding_cycles,
        "an addition to memory in turns, less 1",
    )
    yield ("branches", "mispredict_cycles"), window.mispredict_cycles, "a branch on a random bit"


def measured_figures(survey: Survey, source: str) -> dict[FieldKey, Figure]:
    """Every figure that a survey measures, by its place."""
    return {key: reading.figure(source, survey.date, note) for key, reading, note in readings(survey)}


def unsteady_figures(survey: Survey) -> tuple[str, ...]:
    """The places of the figures whose spread stayed large."""
    return tuple(".".join(map(str, key)) for key, reading, _ in readings(survey) if not reading.is_steady)


def calibration_source(survey: Survey) -> Source:
    """The source of measured figures: host, compiler, date."""
    host = survey.host
    versions = f"soniq-dse {host.versions.get('soniq-dse', '')}".strip()
    processor = f"{host.processor} ({host.vendor} family {host.family} model {host.model}), {host.cores} cores"
    return Source(
        title=f"Microbenchmarks of {versions} on {processor}, {survey.date}; {survey.compiler}"[:400],
        year=survey.date.year,
        locator="soniq_dse/hardware/microbench.py",
    )


def add_source(sources: dict[str, Source], key: str, source: Source) -> str:
    """Enter ``source`` under ``key`` or, where another has it, under the next free number; the key."""
    number, free = 1, key
    while sources.get(free, source) != source:
        number, free = number + 1, f"{key}_{number + 1}"
    sources[free] = source
    return free


def unmeasured(wanted: Collection[tuple[str, int]], survey: Survey) -> tuple[str, ...]:
    """Those of the ``wanted`` instructions (mnemonic, width) that no microbenchmark covers: ``vpermb at 256, 512``."""
    left: dict[str, list[int]] = {}
    for name, bits in sorted(set(wanted) - {(probe.key, probe.width_bits) for probe in survey.instructions}):
        left.setdefault(name, []).append(bits)
    return tuple(f"{name} at {', '.join(map(str, widths))}" if any(widths) else name for name, widths in left.items())


def _ports_source(survey: Survey, ports: PortMap) -> Source:
    return Source(
        title="Ports held against how fast instructions run alone and mixed, on the host of the calibration",
        year=survey.date.year,
        locator=("soniq_dse/hardware/pipes.py; " + "; ".join(text.split("; placed")[0] for text in ports.verdicts))[
            :400
        ],
    )


def _identity(base: HardwareModel, survey: Survey, name: str, title: str | None) -> dict[str, Any]:
    host = survey.host
    here = [simd for simd in base.simd if not missing_features(simd.features, host)]
    widths: dict[int, dict[str, Any]] = {simd.width_bits: simd.model_dump(mode="json") for simd in here}
    for bits in {probe.width_bits for probe in survey.instructions} - {0} - widths.keys():
        feature = "avx512f" if bits == 512 else "avx2"
        widths[bits] = {"width_bits": bits, "features": [feature], "registers": _REGISTERS[feature]}
    known = {plain(feature): feature for probe in survey.instructions for feature in probe.features}
    known |= {plain(feature): feature for feature in base.features}
    features = [feature for feature in known.values() if not missing_features((feature,), host)]
    match = {"vendor": host.vendor, "family": host.family, "models": [host.model], "features": features}
    return {
        "name": name,
        "title": title or f"{host.processor}, measured on {survey.date}"[:200],
        "features": features,
        "matches": [match],
        "cores": host.cores,
        "simd": [widths[bits] for bits in sorted(widths)],
    }


def _set_instructions(
    tree: dict[str, Any], base: HardwareModel, survey: Survey, ports: PortMap, ports_key: str, *, own: bool
) -> None:
    """Instructions of this host: those measured, and those of the base that it has but nothing measures."""
    instructions = {
        name: entry
        for name, entry in tree["instructions"].items()
        if not missing_features(entry["features"], survey.host)
    }
    widths = {str(simd["width_bits"]) for simd in tree["simd"]} | {"0"}
    for entry in instructions.values():
        entry["widths"] = {int(bits): timing for bits, timing in entry["widths"].items() if str(bits) in widths}
    for probe in survey.instructions:
        timed = (probe.key, probe.width_bits)
        least = [feature for feature in probe.features if plain(feature) != "avx512vl"]
        entry = instructions.setdefault(probe.key, {"features": least, "widths": {}})
        kept: InstructionTiming | None = base.timing(*timed)
        confirmed = own and kept is not None and timed not in ports.inferred
        before = entry["widths"].get(probe.width_bits, {})
        entry["widths"][probe.width_bits] = {
            "latency_cycles": before.get("latency_cycles"),
            "reciprocal_throughput_cycles": None,
            "micro_ops": [op.model_dump(mode="json", exclude_defaults=True) for op in ports.micro_ops[timed]],
            "ports_kind": kept.ports_kind if confirmed and kept else "derived",
            "ports_source": kept.ports_source if confirmed and kept else ports_key,
        }
    tree["instructions"] = {name: entry for name, entry in instructions.items() if entry["widths"]}
    widest = max(simd["width_bits"] for simd in tree["simd"])
    tree["recipes"] = {
        name: recipe
        for name, recipe in tree["recipes"].items()
        if recipe["instructions"].keys() <= tree["instructions"].keys() and recipe["min_width_bits"] <= widest
    }


def _set_caches(tree: dict[str, Any], survey: Survey, source: str) -> None:
    """The geometry that the operating system reports; the base's where it reports none."""
    if not survey.caches:
        return
    tree["caches"] = [
        {
            "name": f"L{cache.geometry.level}",
            "size_bytes": {
                "value": cache.geometry.size_bytes, "kind": "vendor", "source": source,
                "note": "as the processor reports it to the operating system (sysfs)",
            },
            "line_bytes": cache.geometry.line_bytes,
            "shared_by_cores": cache.geometry.shared_by_cores,
        }
        for cache in survey.caches
    ]  # fmt: skip


def _set(tree: dict[str, Any], key: FieldKey, figure: dict[str, Any]) -> None:
    """Put a figure in its place."""
    node: Any = tree
    for part in key[:-1]:
        node = next(item for item in node if item["name"] == part) if isinstance(node, list) else node[part]
    node[key[-1]] = figure


def _assume(node: Any, base: str) -> None:
    """Mark every figure below ``node`` as assumed, with a note whose it was, in place."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _assume(inner, base)
    if not isinstance(node, dict):
        return
    if {"value", "kind", "source"} <= node.keys():
        note = f"of {base} ({node['kind']}), not measured here" + (f": {node['note']}" if node.get("note") else "")
        node |= {"kind": "assumed", "samples": None, "spread": None, "date": None, "note": note[:400]}
    if "ports_kind" in node:
        node["ports_kind"] = "assumed"


def _used_ports(tree: Mapping[str, Any]) -> Iterator[str]:
    for instruction in tree["instructions"].values():
        for timing in instruction["widths"].values():
            for micro_op in timing["micro_ops"]:
                yield from micro_op["ports"]


def _header(base: HardwareModel, survey: Survey, ports: PortMap) -> str:
    host: Host = survey.host
    text = _HEADER.format(
        date=survey.date, processor=host.processor, vendor=host.vendor, family=host.family, model=host.model,
        base=base.name, verdicts="".join(f"# {verdict}.\n" for verdict in ports.verdicts),
    )  # fmt: skip
    return "".join(line for line in text.splitlines(keepends=True) if line.rstrip("\n").isprintable())
