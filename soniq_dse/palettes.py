"""Which precision palettes are worth training on a machine, and why the others are not.

From the native levels of a machine and what each costs over a workload: combinations of one to three levels. A level
is dropped where a wider one costs less, a combination where the step to a wider level saves nothing or a budget could
not tell its levels apart. Of the rest a few are chosen that differ in what they use; hand-kept ones
(``palettes/*.yaml``) come first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from soniq_dse.errors import UserError, nearest
from soniq_dse.records.base import Record
from soniq_dse.records.gpu import Machine
from soniq_dse.records.palette import FLOAT_BITS, Level, LevelCost, Palette, PaletteChoice
from soniq_dse.resources import shipped_folder

MAX_LEVELS = 3
"""Levels of an enumerated palette."""
SLOWER = 1.03
"""A level that costs this much more than a wider one is dropped; nearer ones stay, since they are smaller."""
STEP = 1.15
"""A palette's next wider level costs at least this much more, or mixing the two saves no time worth having."""
BUDGET_SHARES = {2: (0.25, 0.5), 3: (0.4,)}
"""Number of levels -> default budgets, as parts of the way from the narrowest to the widest weights."""
QUOTA = {1: 0.3, 2: 0.4, 3: 0.3}
"""Part of the explored palettes by number of levels."""
KEPT_FIELDS = "palette (levels joined by +), budgets_bits_per_weight (a list) and source (text)"


class KeptPalette(Record):
    """A file of ``palettes/``: a palette worth keeping by hand, budgets in bits per weight, and who says so."""

    palette: str
    budgets_bits_per_weight: tuple[Annotated[float, Field(gt=0)], ...] = ()
    source: Annotated[str, Field(min_length=1)]

    @field_validator("palette")
    @classmethod
    def _parses(cls, name: str) -> str:
        return Palette.parse(name).name


def propose_palettes(
    hw: Machine,
    levels: Sequence[LevelCost],
    *,
    limit: int = 10,
    kept: Iterable[KeptPalette] | None = None,
) -> tuple[PaletteChoice, ...]:
    """All palettes that were thought of, those to explore first, each with its reason.

    Args:
        levels: what the native levels of ``hw`` cost over the workload.
        limit: palettes to explore at most.
        kept: hand-kept palettes; default those of ``palettes/``.

    Raises:
        UserError: ``limit`` is below 1, a kept palette is not valid, or the network has nothing to mix.
    """
    if limit < 1:
        raise UserError(f"limit: expected at least 1 palette, got {limit}")
    if levels and not any(cost.cycles for cost in levels):
        raise UserError(
            "palettes: expected a network with a layer between its first and its last, whose inputs stay at 8 bits, "
            "got none: there is nothing to mix"
        )
    costs = {cost.level: cost for cost in levels}
    dropped = {cost.level: reason for cost in levels if (reason := why_level_cannot_win(cost, levels))}
    by_hand = [_judge_kept(entry, hw, costs, dropped) for entry in (kept_palettes() if kept is None else kept)]
    taken = {choice.palette.levels for choice in by_hand}
    usable = [cost for cost in levels if cost.level not in dropped]
    candidates, refused = _combinations(usable, taken)
    first = [choice for choice in by_hand if choice.explored][:limit]
    chosen = _choose(candidates, costs, first, limit)
    explored = [_explored(levels_of, costs) for levels_of in chosen]
    left = [
        _choice(combo, False, f"not among the {limit} explored by default: like those chosen, but less apart in cost")
        for combo in candidates
        if combo not in chosen
    ]
    hopeless = [_choice((level,), False, reason) for level, reason in dropped.items()]
    rest = [
        choice.model_copy(update={"explored": False, "reason": f"beyond the {limit} asked for; {choice.reason}"})
        if choice.explored
        else choice
        for choice in by_hand
        if choice not in first
    ]
    return tuple(first + explored + rest + left + refused + hopeless)


def why_level_cannot_win(cost: LevelCost, levels: Sequence[LevelCost]) -> str | None:
    """The reason why a level is never worth using; None where it may be.

    A level loses to one that is at least as wide in weights and activations and costs less. Weight-only levels keep
    activations in fp32; they lose to 8-bit integers, which cost no accuracy worth having (Jacob et al., CVPR 2018).
    """
    mine = cost.level
    for other in sorted(levels, key=lambda entry: entry.cycles):
        wider = (
            other.level != mine
            and other.level.weight_bits >= mine.weight_bits
            and (other.level.activation_bits >= mine.activation_bits or _replaces_float(other.level, mine))
        )
        if wider and cost.cycles > other.cycles * SLOWER:
            return (
                f"{mine.name} cannot win: {cost.cycles / other.cycles:.2f} times the cycles of {other.level.name}, "
                f"which is {'8 bits in both' if _replaces_float(other.level, mine) else 'at least as wide in both'}"
            )
    return None


def kept_palettes(folder: Path | None = None) -> tuple[KeptPalette, ...]:
    """The hand-kept palettes, by file name.

    Raises:
        UserError: a file is not of that form.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found = []
    for path in sorted((folder or shipped_folder("palettes")).glob("*.yaml")):
        try:
            found.append(KeptPalette.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))))
        except (YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path.name}: expected YAML text, got {' '.join(str(error).split())[:200]}") from error
        except ValidationError as error:
            slip = error.errors()[0]
            field = ".".join(map(str, slip["loc"])) or "the file"
            raise UserError(f"{path.name} {field}: expected {KEPT_FIELDS}, got: {slip['msg']}") from error
    return tuple(found)


def _replaces_float(other: Level, mine: Level) -> bool:
    return mine.is_weight_only and other.weight_bits == other.activation_bits == 8


def _judge_kept(
    entry: KeptPalette, hw: Machine, costs: dict[Level, LevelCost], dropped: dict[Level, str]
) -> PaletteChoice:
    palette = Palette.parse(entry.palette, source=entry.source)
    missing = [level.name for level in palette.levels if level not in costs]
    lost = [dropped[level] for level in palette.levels if level in dropped]
    if missing:
        close = nearest(missing[0], [level.name for level in costs])
        reason = f"{hw.name} does not compute {', '.join(missing)} natively{close}"
    elif lost:
        reason = lost[0]
    else:
        reason = f"kept by hand ({entry.source}); {_span(palette.levels, costs)}"
    return PaletteChoice(
        palette=palette,
        explored=not missing and not lost,
        reason=reason,
        budgets_bits_per_weight=entry.budgets_bits_per_weight,
        kind="kept",
    )


Levels = tuple[Level, ...]


def _combinations(usable: Sequence[LevelCost], taken: set[Levels]) -> tuple[list[Levels], list[PaletteChoice]]:
    """(combinations worth training, pairs that are not, each with the reason). Larger ones hold only good pairs."""
    costs = {cost.level: cost.cycles for cost in usable}
    ordered = sorted(costs, key=lambda level: (level.weight_bits, level.activation_bits))
    refused = []
    pairs: set[Levels] = set()
    for narrow, wide in itertools.combinations(ordered, 2):
        reason = _why_not_together(narrow, wide, costs)
        if reason is None:
            pairs.add((narrow, wide))
        elif (narrow, wide) not in taken:
            refused.append(_choice((narrow, wide), False, reason))
    combos: list[Levels] = [(level,) for level in ordered]
    for size in range(2, MAX_LEVELS + 1):
        combos += [c for c in itertools.combinations(ordered, size) if set(itertools.pairwise(c)) <= pairs]
    return [combo for combo in combos if combo not in taken], refused


def _why_not_together(narrow: Level, wide: Level, costs: dict[Level, float]) -> str | None:
    if wide.weight_bits == narrow.weight_bits:
        return (
            f"{narrow.name} and {wide.name} have equal weight bits: no budget in bits per weight chooses between them"
        )
    if wide.activation_bits < narrow.activation_bits:
        return f"{wide.name} has wider weights but narrower activations than {narrow.name}: neither is the better level"
    ratio = costs[wide] / costs[narrow]
    if ratio < STEP:
        return f"{narrow.name} costs {1 / ratio:.2f} of {wide.name}: mixing them saves no time worth having"
    return None


def _choose(
    candidates: Sequence[Levels], costs: dict[Level, LevelCost], first: Sequence[PaletteChoice], limit: int
) -> list[Levels]:
    """Up to ``limit`` less ``first`` combinations: by quota per size, greedily the one that adds most."""
    chosen: list[Levels] = []
    have = [choice.palette.levels for choice in first]
    for size in sorted(QUOTA, key=lambda n: -QUOTA[n]):
        wanted = max(1, round(QUOTA[size] * limit)) - sum(len(levels) == size for levels in have)
        pool = [combo for combo in candidates if len(combo) == size]
        for _ in range(min(wanted, len(pool), limit - len(have))):
            best = max((c for c in pool if c not in chosen), key=lambda c: _gain(c, have, costs))
            chosen.append(best)
            have.append(best)
    rest = [combo for combo in candidates if combo not in chosen]
    while rest and len(have) < limit:
        best = max(rest, key=lambda c: _gain(c, have, costs))
        rest.remove(best)
        chosen.append(best)
        have.append(best)
    return sorted(chosen, key=lambda combo: (len(combo), [(v.weight_bits, v.activation_bits) for v in combo]))


def _gain(combo: Levels, have: Sequence[Levels], costs: dict[Level, LevelCost]) -> tuple[float, ...]:
    """What a palette adds: levels and pairs not in ``have``, no level that a wider one equals, distance in cost."""
    cycles = [costs[level].cycles for level in combo]
    equalled = sum(_equalled(level, costs) for level in combo)
    if len(combo) == 1:
        others = [costs[levels[0]].cycles for levels in have if len(levels) == 1]
        apart = min((abs(math.log(cycles[0] / other)) for other in others), default=-cycles[0])
        return (round(apart, 2), -equalled)
    used = {level for levels in have for level in levels}
    pairs = {pair for levels in have for pair in itertools.pairwise(levels)}
    new_levels = sum(level not in used for level in combo)
    new_pairs = sum(pair not in pairs for pair in itertools.pairwise(combo))
    return (-equalled, new_levels, new_pairs, min(math.log(b / a) for a, b in itertools.pairwise(cycles)))


def _equalled(level: Level, costs: dict[Level, LevelCost]) -> bool:
    """Whether a wider level costs as little: then this one is worth its size only."""
    return any(
        other != level
        and other.weight_bits >= level.weight_bits
        and FLOAT_BITS > other.activation_bits >= level.activation_bits
        and cost.cycles <= costs[level].cycles * SLOWER
        for other, cost in costs.items()
    )


def _explored(levels: Levels, costs: dict[Level, LevelCost]) -> PaletteChoice:
    return _choice(levels, True, _span(levels, costs), budgets=_budgets(levels))


def _span(levels: Levels, costs: dict[Level, LevelCost]) -> str:
    if len(levels) == 1:
        cost = costs[levels[0]]
        return f"{cost.cycles / 1000:.4g} kilocycles in the layers that it decides; {cost.reason}"
    ratios = [f"{costs[b].cycles / costs[a].cycles:.2g}" for a, b in itertools.pairwise(levels)]
    return f"each wider level costs {', then '.join(ratios)} times the one before: what stays narrow saves time"


def _budgets(levels: Levels) -> tuple[float, ...]:
    """Budgets in quarters of a bit between the narrowest and the widest weights."""
    low, high = levels[0].weight_bits, levels[-1].weight_bits
    shares = BUDGET_SHARES.get(len(levels), ())
    return tuple(sorted({round(4 * (low + share * (high - low))) / 4 for share in shares}))


def _choice(levels: Levels, explored: bool, reason: str, budgets: tuple[float, ...] = ()) -> PaletteChoice:
    return PaletteChoice(
        palette=Palette(levels=levels), explored=explored, reason=reason, budgets_bits_per_weight=budgets
    )
