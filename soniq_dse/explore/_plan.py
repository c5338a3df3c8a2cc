"""What a run will do, before it does anything that takes long: machine, graph, candidates, and what is left out."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soniq_dse.cost.bounds import latency_bounds, uniform_assignment
from soniq_dse.cost.network import estimate, level_costs
from soniq_dse.errors import UserError
from soniq_dse.explore._asked import known, machine_of, search_budget
from soniq_dse.explore._budgets import Wanted, asked, priced, wanted
from soniq_dse.explore._pins import parse_ends, parse_pins
from soniq_dse.explore._recipe import schedule_of
from soniq_dse.hardware.whatif import what_if
from soniq_dse.palettes import propose_palettes
from soniq_dse.records.cost import Host
from soniq_dse.records.design import Candidate, Granularity
from soniq_dse.records.front import SkippedDesign, TaskInfo
from soniq_dse.records.gpu import Machine
from soniq_dse.records.palette import Level, Palette, PaletteChoice
from soniq_dse.records.workload import Workload
from soniq_dse.search import breadth_first
from soniq_dse.store import result_key
from soniq_dse.workloads import Defaults, load_model, load_task, model_at_width
from soniq_dse.workloads.pins import graph_of
from soniq_dse.workloads.task import Task, cross_entropy

if TYPE_CHECKING:
    import torch

INT8 = Palette(levels=(Level(weight_bits=8, activation_bits=8),))
K_GROUP = 16
"""Channels of a level come in multiples of this: fine enough for budgets, little padding at any kernel's own group."""
COST_GROUP = 64
"""The same for budgets in latency or energy: a small part of a layer costs a call and an epilogue of its own, so that a
mixed layer is often slower than one that is wholly at its wider level."""
MARGIN = 1.1
"""How much slower than its rival a design must be predicted to be stopped: the model orders close ones wrongly."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; None: the default of the host, the model or the data set.

    ``palettes`` are names (``w1a1+w4a4``, with ``@2.0`` a budget in bits per weight, with ``@30us`` or ``@5uj`` one in
    predicted latency or energy of the network); empty: those worth exploring. ``budget_us`` and ``budget_uj`` are such
    budgets for every palette of several levels that names none.
    ``settings`` change the machine: ``hardware/whatif.py``. ``pins`` are texts like ``head=w4a4``; ``first_last`` is a
    level or ``none``.
    ``widths`` multiply the model's channels, the widest first; empty: the model's own where ``palettes`` is empty too.
    ``epochs`` are those of the FP32 warm start, of phase 1 and of phase 2; ``recipe`` are ``FIELD=VALUE`` of the
    schedule. ``limit`` bounds the examples of each split. ``search`` names the strategy, ``search_epochs`` bounds what
    it may ask for. ``timeout_s`` and ``memory_mib`` bound one training, ``executor`` runs it, on a cluster's
    node that has ``needs``. What follows ``threads`` does not change what is trained.
    """

    hw: str | None = None
    settings: tuple[str, ...] = ()
    model: str = "digits_cnn"
    data: str | None = None
    palettes: tuple[str, ...] = ()
    budget_us: tuple[float, ...] = ()
    budget_uj: tuple[float, ...] = ()
    pins: tuple[str, ...] = ()
    first_last: str | None = None
    granularity: Granularity = "class"
    widths: tuple[float, ...] = ()
    seeds: int = 1
    epochs: tuple[int, int, int] | None = None
    recipe: tuple[str, ...] = ()
    limit: int | None = None
    allocator: str = "soniq"
    search: str | None = None
    search_epochs: int | None = None
    batch: int = 1
    threads: int = 1
    jobs: int = 1
    out: Path | None = None
    store: Path | None = None
    measure: bool = True
    autotune: bool = False
    what_if: tuple[str, ...] = ()
    fresh: bool = False
    timeout_s: float = 3600.0
    memory_mib: int | None = None
    executor: str = "process"
    needs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Variant:
    """The model at one width: how it is built, and its graph."""

    build: Callable[[], torch.nn.Module]
    workload: Workload


@dataclass(frozen=True)
class Plan:
    """The walk as far as it costs nothing.

    ``variants`` are the model at each width, by its spec (``digits_cnn@0.5``), the widest first; ``workload`` is that
    one's graph. ``candidates`` are all trainings besides the FP32 ones, the INT8 reference of each seed first.
    ``host_mismatch`` is None where the descriptor describes this host.
    """

    options: Options
    hardware: Machine
    host: Host
    host_mismatch: str | None
    variants: dict[str, Variant]
    task: Task
    task_info: TaskInfo
    choices: tuple[PaletteChoice, ...]
    candidates: tuple[Candidate, ...]
    skipped: tuple[SkippedDesign, ...]

    @property
    def title(self) -> str:
        """The machine, and the allocator where it is not the usual one, in a few words: ``avx512, ports.vector=3``."""
        options = self.options
        return ", ".join([self.hardware.name, *options.settings, *[options.allocator] * (options.allocator != "soniq")])

    @property
    def workload(self) -> Workload:
        """The graph of the model at its widest."""
        return next(iter(self.variants.values())).workload

    @property
    def baselines(self) -> tuple[Candidate, ...]:
        """One candidate per width and seed, for the FP32 reference and warm start; its palette says nothing."""
        found = {(c.model, c.seed): c for c in reversed(self.candidates)}
        return tuple(_bare(c) for c in reversed(found.values()))

    def graph(self, candidate: Candidate) -> Workload:
        """The network's graph with the pins and classes of ``candidate``."""
        return graph_of(self.variants[candidate.model].workload, candidate)

    @property
    def search(self) -> str:
        """The strategy: every design, or the default one where there is a budget."""
        return self.options.search or ("exhaustive" if self.options.search_epochs is None else "combined")

    @property
    def designs(self) -> tuple[Candidate, ...]:
        """What is searched: all candidates but the INT8 references."""
        return tuple(c for c in self.candidates if not (c.palette == INT8 and self.is_reference(c)))

    @property
    def search_epochs(self) -> int | None:
        """What the search may spend; None: any number of epochs."""
        return search_budget(self.search, self.options.search_epochs, self.designs)

    def is_reference(self, candidate: Candidate) -> bool:
        """Whether its INT8 and FP32 networks are what the designs are compared with: those of the widest model."""
        return candidate.model == next(iter(self.variants))

    def key(self, kind: str, candidate: Candidate) -> str:
        """Where the store keeps the training of ``candidate``: all its inputs, the network's graph included."""
        if kind == "baseline":
            shared = _bare(candidate).model_copy(update={"schedule": self.candidates[0].schedule.of_baseline})
            return result_key(kind, shared, self.variants[candidate.model].workload)
        return result_key(kind, candidate, self.variants[candidate.model].workload)

    @property
    def run_key(self) -> str:
        """The hash of all that decides the result of the run."""
        names: list[object] = [candidate.to_json_value() for candidate in self.candidates]
        names += [] if self.search_epochs is None else [self.search, self.search_epochs]
        return result_key(self.hardware, self.workload, names, self.options.batch, self.options.threads)

    @property
    def folder(self) -> Path:
        """Where the run's files go; the same command gives the same folder."""
        if self.options.out is not None:
            return self.options.out
        name = re.sub(r"[^A-Za-z0-9.]+", "_", self.task_info.data).strip("_")
        return Path("reports") / "runs" / f"{name}-{self.hardware.name}-{self.run_key[:8]}"

    @property
    def store_folder(self) -> Path:
        """Where results are kept."""
        return self.options.store or self.folder / "store"


def _bare(candidate: Candidate) -> Candidate:
    """All that the FP32 network depends on."""
    unused = {"budget_bits": None, "k_group": 1, "costs": None, "allocator": "soniq"}
    return _reference(candidate).model_copy(update=unused | {"schedule": candidate.schedule.of_baseline})


def _reference(candidate: Candidate) -> Candidate:
    """All at 8 bits."""
    return candidate.model_copy(update={"palette": INT8, "pins": {}, "first_last": None, "granularity": "class"})


def design_name(candidate: Candidate) -> str:
    """The name of a design over all its seeds: ``w1a1+w4a4@2``."""
    name = candidate.name.removesuffix(f"-s{candidate.seed}").removesuffix("-soniq")
    return "INT8 (w8a8)" if name == INT8.name else name


def training_name(kind: str, candidate: Candidate) -> str:
    """The name of one training: ``FP32, seed 0`` or ``w1a1+w4a4@2, seed 0``."""
    width = candidate.model.partition("@")[2]
    name = f"FP32{width and '-x'}{width}" if kind == "baseline" else design_name(candidate)
    return f"{name}, seed {candidate.seed}"


def make_plan(options: Options) -> Plan:
    """Load, trace, cost and choose.

    Raises:
        UserError: something that the options name does not exist or does not fit.
    """
    hardware, host, mismatch = machine_of(options.hw, options.settings)
    for setting in options.what_if:
        what_if(hardware, [setting])  # refused before anything is trained
    with contextlib.redirect_stdout(sys.stderr):  # a user's model may print; standard output is for data
        build, defaults = load_model(options.model)
        data = options.data or defaults.data
        if data is None:
            raise UserError(f"model {options.model}: expected --data with a model of your own, got none")
        task = load_task(data, options.limit)
        variants = _variants(options, build, defaults, task)
    template = Candidate(
        model=options.model,
        data=data,
        data_sha256=task.data_sha256,
        palette=INT8,
        allocator=known("allocator", options.allocator),
        schedule=schedule_of(defaults.schedule, options.epochs, options.recipe),
        pins=parse_pins(options.pins),
        first_last=parse_ends(options.first_last),
        granularity=options.granularity,
    )
    graphs = {spec: graph_of(v.workload, template) for spec, v in variants.items()}
    _refuse_untrainable(graphs, options.palettes)
    known("search", options.search or "exhaustive")
    choices = _choices(options, hardware, next(iter(graphs.values())))
    candidates, skipped = _candidates(options, hardware, graphs, template, choices)
    return Plan(
        options=options,
        hardware=hardware,
        host=host,
        host_mismatch=mismatch,
        variants=variants,
        task=task,
        task_info=_task_info(options.model, data, task),
        choices=tuple(one.choice for one in choices),
        candidates=candidates,
        skipped=skipped,
    )


def _trace(build: Callable[[], torch.nn.Module], task: Task, name: str) -> Workload:
    from soniq_dse.workloads.trace import trace

    workload = trace(build(), task.example(1), name=name, input_nonnegative=task.input_nonnegative, task=task.name)
    shape, classes = workload.nodes[-1].shape, task.n_classes
    if classes is not None and task.loss is cross_entropy and (len(shape) != 2 or shape[1] < classes):
        raise UserError(f"model {name}: expected outputs [n, {classes}], one per class of {task.name}, got {shape}")
    return workload


def _variants(
    options: Options, build: Callable[[], torch.nn.Module], defaults: Defaults, task: Task
) -> dict[str, Variant]:
    """The model at every width asked for, by its spec. A spec that names a width, or palettes by name, mean just it."""
    own = (1.0,) if options.palettes or "@" in options.model else defaults.widths
    widths = sorted(set(options.widths or own), reverse=True)
    if options.widths and "@" in options.model:
        raise UserError(f"--widths: expected a model without a width of its own, got {options.model}")
    variants = {}
    for width in widths:
        spec = model_at_width(options.model, width)
        built = build if width == 1 else load_model(spec)[0]
        variants[spec] = Variant(built, _trace(built, task, spec))
    return variants


def _refuse_untrainable(graphs: dict[str, Workload], palettes: Sequence[str]) -> None:
    from soniq_dse.qat.apply import check_trainable

    for graph in graphs.values():
        for palette in (INT8, *(asked(text).choice.palette for text in palettes)):
            check_trainable(graph, palette)


def _task_info(model: str, data: str, task: Task) -> TaskInfo:
    return TaskInfo(
        model=model,
        data=data,
        metric=task.metric.name,
        metric_unit=task.metric.unit,
        direction="max" if task.metric.direction == "up" else "min",
        n_train=len(task.train),
        n_val=len(task.val),
        n_test=len(task.test),
    )


def _choices(options: Options, hardware: Machine, workload: Workload) -> tuple[Wanted, ...]:
    if options.palettes:
        found = tuple(asked(text) for text in options.palettes)
    else:
        costs = level_costs(hardware, workload, batch=options.batch, threads=options.threads)
        proposed = propose_palettes(hardware, costs)
        if options.budget_us or options.budget_uj:
            proposed = tuple(choice.model_copy(update={"budgets_bits_per_weight": ()}) for choice in proposed)
        found = tuple(Wanted(choice) for choice in proposed)
    return wanted(found, options.budget_us, options.budget_uj)


def _candidates(
    options: Options,
    hardware: Machine,
    graphs: dict[str, Workload],
    template: Candidate,
    choices: Sequence[Wanted],
) -> tuple[tuple[Candidate, ...], tuple[SkippedDesign, ...]]:
    """All trainings in the order of the search, and what is left out with its reason."""
    skipped = [SkippedDesign(name=c.choice.name, reason=c.choice.reason) for c in choices if not c.choice.explored]
    explored = [one for one in choices if one.choice.explored and one.choice.palette.name != INT8.name]
    found_all: list[Candidate] = []
    hopeless: dict[str, str] = {}
    beyond: list[SkippedDesign] = []
    for model, graph in graphs.items():
        own = template.model_copy(update={"model": model})
        here = [c for c in explored if not found_all or options.palettes or len(c.choice.palette.levels) == 1]
        choices_here, unreached = priced(here, hardware, graph, batch=options.batch, threads=options.threads)
        beyond += unreached
        seeds = range(options.seeds)
        found = [_reference(own.model_copy(update={"seed": seed})) for seed in seeds]
        found += [_plain(candidate) for candidate in breadth_first(own, choices_here, seeds)]
        if not options.palettes:  # what was asked for by name is trained: the bound only thins out proposals
            hopeless |= _hopeless(options, hardware, graph, [c for c in found if _has_pins_of(c, own)])
        found_all += found
    if beyond and not any(candidate.costs for candidate in found_all):
        raise UserError(beyond[0].reason)
    skipped += beyond + [SkippedDesign(name=name, reason=reason) for name, reason in hopeless.items()]
    kept = [c for c in found_all if c.palette == INT8 or design_name(c) not in hopeless]
    return tuple(sorted(kept, key=lambda candidate: candidate.seed)), tuple(skipped)


def _has_pins_of(candidate: Candidate, other: Candidate) -> bool:
    return (candidate.pins, candidate.first_last) == (other.pins, other.first_last)


def _plain(candidate: Candidate) -> Candidate:
    """Without what does not change the training: where the palette came from, a group where all channels are alike."""
    levels = candidate.palette.levels
    group = K_GROUP if candidate.costs is None else COST_GROUP
    return candidate.model_copy(update={"palette": Palette(levels=levels), "k_group": group if len(levels) > 1 else 1})


def _hopeless(
    options: Options, hardware: Machine, workload: Workload, candidates: Sequence[Candidate]
) -> dict[str, str]:
    """Designs that cannot be on the front, by name, with the reason.

    A design is hopeless where another one has no narrower level than this one's widest, and is faster at its slowest
    assignment than this one at its fastest: it is expected to be at least as accurate, and it is faster.
    """
    levels = {level for candidate in candidates for level in candidate.palette.levels}
    uniform = {
        level: estimate(
            hardware, workload, uniform_assignment(workload, level), batch=options.batch, threads=options.threads
        )
        for level in levels
    }
    designs = {design_name(c): c for c in candidates}
    bounds = {name: latency_bounds(workload, uniform, c.palette, c.budget_bits) for name, c in designs.items()}
    result: dict[str, str] = {}
    for name, candidate in designs.items():
        for other, rival in designs.items():
            if _is_as_wide(rival.palette, candidate.palette) and MARGIN * bounds[other].high_us < bounds[name].low_us:
                low, high = bounds[name].low_us, bounds[other].high_us
                reason = f"at least {low:.4g} us, while {other}, nowhere narrower, takes at most {high:.4g} us"
                result.setdefault(name, f"stopped by the cost bound: {reason}")
    return result


def _is_as_wide(rival: Palette, palette: Palette) -> bool:
    """Whether every level of ``rival`` has at least the bits of every level of ``palette``."""
    return rival != palette and all(
        wide.weight_bits >= narrow.weight_bits and wide.activation_bits >= narrow.activation_bits
        for wide in rival.levels
        for narrow in palette.levels
    )
