"""The port map of a calibrated machine: the base descriptor's where it explains the readings, else an inferred one.

A map explains a rate where the reading lies between the best assignment of micro-operations to ports and an even
one (``hardware/ports.py``), give or take ``TOLERANCE`` and three times the spread. Where at most ``MISFITS`` of the
readings of a family (vector instructions, loads, stores) are not explained, the base map stays and only the
instructions concerned are placed anew on its ports; otherwise the whole family's map is inferred
(``hardware/pipes.py``). Scalar instructions run near the limit of the front end, which hides their ports: theirs stay
unless the reading rules them out, and then are as many as the rate asks for, the same ones for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from soniq_dse.hardware.microbench import Reading
from soniq_dse.hardware.pipes import MAX_PIPES, PIPE_COST, TOLERANCE, Mix, Occupation, aligned, infer_pipes, occupations
from soniq_dse.hardware.ports import evenly_spread, port_bound
from soniq_dse.hardware.probes import Probe
from soniq_dse.hardware.survey import Group, Survey
from soniq_dse.records.hardware import HardwareModel, MicroOp, Port

MISFITS = 0.05
"""Share of a family's readings that may contradict the base map before it is given up."""
_SCALAR_SLACK = 0.35
_MOVE_COST = TOLERANCE**2
"""What other ports than at half the width have to gain in a mix: squared relative error."""
RENAMED = ("mov", "movzx", "lea")
"""Recent cores do these while renaming, at the width of the front end: their rates tell nothing about ports."""

Timed = tuple[str, int]
"""An instruction's key and vector width in bits."""
MicroOps = tuple[MicroOp, ...]


@dataclass(frozen=True)
class PortMap:
    """The micro-operations of every measured instruction, which of them are inferred, all ports, and the verdicts."""

    micro_ops: Mapping[Timed, MicroOps]
    inferred: frozenset[Timed]
    ports: tuple[Port, ...]
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class _Evidence:
    """What a group's readings are held against: solo rates and mixes by name."""

    group: Group
    rates: Mapping[str, Reading]
    counts: Mapping[str, int]
    mixes: Mapping[Mix, Reading]
    issue_width: float

    def of(self, name: str) -> list[Mix]:
        return [mix for mix in self.mixes if name in (mix.first, mix.second)]

    def explained(self, mix: Mix, known: Mapping[str, MicroOps]) -> bool:
        """Whether a map explains a mix."""
        uses = [*[known[mix.first]] * mix.first_count, *[known[mix.second]] * mix.second_count]
        return _explains(uses, self.mixes[mix], self.issue_width)

    def error(self, mix: Mix, known: Mapping[str, MicroOps]) -> float:
        """Relative error of the best assignment."""
        uses = [*[known[mix.first]] * mix.first_count, *[known[mix.second]] * mix.second_count]
        best = max(port_bound(_loads(uses)).cycles, len(uses) / self.issue_width)
        return best / self.mixes[mix].value - 1


def judged_ports(base: HardwareModel, survey: Survey) -> PortMap:
    """The port map of the surveyed machine, given that of ``base``."""
    issue = base.issue_width.value
    evidence = [
        _Evidence(
            group,
            {name: survey.instructions[probe].reciprocal_throughput_cycles for name, probe in group.members.items()},
            {name: survey.instructions[probe].micro_ops for name, probe in group.members.items()},
            survey.mixes.get(group.name, {}),
            issue,
        )
        for group in survey.groups
    ]
    micro_ops: dict[Timed, MicroOps] = {}
    inferred: set[Timed] = set()
    verdicts = []
    for name in ("load", "store", "vector"):
        family = [entry for entry in evidence if entry.group.family == name]
        known, anew, verdict = _judge_family(base, name, family)
        micro_ops |= known
        inferred |= anew
        verdicts.append(verdict)
    for probe, reading in survey.instructions.items():
        if probe.width_bits == 0 and probe.form not in ("load", "store"):
            ops, is_new = _scalar(base, probe, reading.reciprocal_throughput_cycles)
            micro_ops[_timed(probe)] = ops
            inferred |= {_timed(probe)} if is_new else set()
    ports = _ports(base, micro_ops, survey)
    return PortMap(micro_ops, frozenset(inferred), ports, tuple(verdicts))


def _judge_family(
    base: HardwareModel, name: str, family: Sequence[_Evidence]
) -> tuple[dict[Timed, MicroOps], set[Timed], str]:
    wrong = total = 0
    for evidence in family:
        known, landmarks = _base_map(base, evidence.group), evidence.group.landmarks
        mixes = [mix for mix in evidence.mixes if mix.first in landmarks and mix.second in landmarks]
        wrong += sum(not (mark in known and _fits_alone(evidence, mark, known)) for mark in landmarks)
        wrong += sum(not ({mix.first, mix.second} <= known.keys() and evidence.explained(mix, known)) for mix in mixes)
        total += len(landmarks) + len(mixes)
    if wrong <= MISFITS * total:
        found, anew = _kept(base, family)
        text = f"{name} ports: the map of {base.name} explains {total - wrong} of {total} readings and is kept"
        names = ", ".join(f"{key} at {width}" for key, width in sorted(anew))
        return found, anew, text + (f"; placed anew: {names}" if anew else "")
    found = _replaced(family, name)
    text = f"{name} ports: the map of {base.name} explains {total - wrong} of {total} readings"
    return found, set(found), f"{text}; replaced by an inferred one"


def _kept(base: HardwareModel, family: Sequence[_Evidence]) -> tuple[dict[Timed, MicroOps], set[Timed]]:
    found: dict[Timed, MicroOps] = {}
    anew = set()
    for evidence in family:
        known = _base_map(base, evidence.group)
        candidates = {port for ops in known.values() for op in ops for port in op.ports}
        for name, probe in evidence.group.members.items():
            tests = [mix for mix in evidence.of(name) if {mix.first, mix.second} <= known.keys()]
            misfits = [not evidence.explained(mix, known) for mix in tests]
            if name in known and sum(misfits, not _fits_alone(evidence, name, known)) <= len(misfits) // 3:
                found[_timed(probe)] = known[name]
                continue
            found[_timed(probe)] = _placed(evidence, name, known, candidates, _narrower(found, probe))
            anew.add(_timed(probe))
    return found, anew


def _narrower(found: Mapping[Timed, MicroOps], probe: Probe) -> frozenset[str]:
    """The ports that an instruction was given at half the width; empty: it was not."""
    ops = found.get((probe.key, probe.width_bits // 2), ())
    return frozenset(port for op in ops for port in op.ports)


def _replaced(family: Sequence[_Evidence], prefix: str) -> dict[Timed, MicroOps]:
    """Maps inferred group by group; pipes of a wider group are numbered to agree with the narrower one."""
    found: dict[Timed, MicroOps] = {}
    before: dict[str, Occupation] = {}
    for evidence in family:
        landmarks = [name for name in evidence.group.landmarks if evidence.counts[name] == 1]
        rates = {name: evidence.rates[name].value for name in landmarks}
        mixes = {
            mix: reading.value
            for mix, reading in evidence.mixes.items()
            if mix.first in landmarks and mix.second in landmarks
        }
        before = aligned(infer_pipes(rates, mixes, evidence.issue_width), before)
        known = {name: _micro_ops(use, prefix) for name, use in before.items()}
        candidates = {port for ops in known.values() for op in ops for port in op.ports} or {f"{prefix}0"}
        for name, probe in evidence.group.members.items():
            found[_timed(probe)] = known.get(name) or _placed(evidence, name, known, candidates)
    return found


def _placed(
    evidence: _Evidence,
    name: str,
    known: Mapping[str, MicroOps],
    candidates: Iterable[str],
    narrower: frozenset[str] = frozenset(),
) -> MicroOps:
    """The ports among ``candidates`` that explain the mixes of an instruction with the ``known`` ones best.

    Those of half the width, where it was placed there, stay unless others explain clearly more.
    """
    others = {other: ops for other, ops in known.items() if other != name}
    tests = [mix for mix in evidence.of(name) if (mix.first if mix.second == name else mix.second) in others]
    ports = sorted(candidates)[:MAX_PIPES]
    options = [
        _split(chosen, cycles, evidence.counts[name])
        for count, cycles in occupations(evidence.rates[name].value)
        for chosen in itertools.combinations(ports, min(count, len(ports)))
    ]

    def cost(ops: MicroOps) -> float:
        misses = sum(evidence.error(mix, {**others, name: ops}) ** 2 for mix in tests)
        moved = bool(narrower) and narrower != frozenset(ops[0].ports)
        return misses + PIPE_COST * len(ops[0].ports) + _MOVE_COST * len(tests) * moved

    return min(options, key=cost)


def _split(ports: Sequence[str], cycles: float, count: int) -> MicroOps:
    """``count`` micro-operations that hold one of ``ports`` for ``cycles`` in all."""
    return (MicroOp(ports=tuple(ports), cycles=round(cycles / count, 3)),) * count


def _scalar(base: HardwareModel, probe: Probe, reading: Reading) -> tuple[MicroOps, bool]:
    """Ports of a scalar instruction, and whether they are inferred: those of ``add`` and new ones beyond them."""
    timing, renamed = base.timing(probe.key, 0), probe.key in RENAMED
    if timing and (renamed or _explains([timing.micro_ops], reading, base.issue_width.value, _SCALAR_SLACK)):
        return timing.micro_ops, False
    add = base.timing("add", 0)
    pool = add.micro_ops[0].ports if add else tuple(port.name for port in base.ports if port.role == "scalar")
    if renamed and pool:
        return (MicroOp(ports=pool),), True
    count = max(1, round(1 / reading.value))
    names = (*pool, *(f"s{i}" for i in range(count)))[:count]
    return (MicroOp(ports=names, cycles=max(1.0, round(reading.value, 2))),), True


def _explains(uses: Sequence[MicroOps], reading: Reading, issue_width: float, slack: float = TOLERANCE) -> bool:
    loads, issue = _loads(uses), len(uses) / issue_width
    low, high = max(port_bound(loads).cycles, issue), max(evenly_spread(loads).cycles, issue)
    noise = 3 * reading.spread
    return low * (1 - TOLERANCE) - noise <= reading.value <= high * (1 + slack) + noise


def _fits_alone(evidence: _Evidence, name: str, known: Mapping[str, MicroOps]) -> bool:
    return _explains([known[name]], evidence.rates[name], evidence.issue_width)


def _loads(uses: Iterable[MicroOps]) -> dict[frozenset[str], float]:
    loads: dict[frozenset[str], float] = {}
    for op in itertools.chain.from_iterable(uses):
        ports = frozenset(op.ports)
        loads[ports] = loads.get(ports, 0.0) + op.cycles
    return loads


def _base_map(base: HardwareModel, group: Group) -> dict[str, MicroOps]:
    timings = {name: base.timing(probe.key, probe.width_bits) for name, probe in group.members.items()}
    return {name: timing.micro_ops for name, timing in timings.items() if timing}


def _micro_ops(use: Occupation, prefix: str) -> MicroOps:
    return (MicroOp(ports=tuple(f"{prefix}{pipe}" for pipe in sorted(use.pipes)), cycles=use.cycles),)


def _timed(probe: Probe) -> Timed:
    return probe.key, probe.width_bits


def _ports(base: HardwareModel, micro_ops: Mapping[Timed, MicroOps], survey: Survey) -> tuple[Port, ...]:
    """The base's ports, then new ones; a port that loads use is a load port."""
    roles: dict[str, Port] = {}
    known = {port.name for port in base.ports}
    for probe in sorted(survey.instructions, key=lambda probe: (probe.form != "load", probe.width_bits, probe.key)):
        for op in micro_ops[_timed(probe)]:
            for name in op.ports:
                kind = probe.form if probe.form in ("load", "store") else "vector" if probe.width_bits else "scalar"
                roles.setdefault(name, Port.model_validate({"name": name, "role": kind}))
    return (*base.ports, *(roles[name] for name in sorted(roles.keys() - known)))
