"""The order of the exhaustive search, written out."""

from __future__ import annotations

from soniq_dse.records.channel_costs import ChannelCosts
from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Level, Palette, PaletteChoice
from soniq_dse.search import Space, breadth_first
from soniq_dse.search.exhaustive import Exhaustive


def test_first_budgets_then_second_then_the_next_seed() -> None:
    budgets = {"w4a4": (), "w1a1+w4a4": (2.0, 3.0), "w1a1": ()}
    choices = tuple(
        PaletteChoice(palette=Palette.parse(name), explored=True, reason="test", budgets_bits_per_weight=values)
        for name, values in budgets.items()
    )
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
    template = Candidate(model="m", data="d", data_sha256="0", palette=choices[0].palette, schedule=schedule)
    search = Exhaustive(Space(tuple(breadth_first(template, choices, (5, 6)))))
    once = ["w4a4-soniq-s{}", "w1a1+w4a4@2-soniq-s{}", "w1a1-soniq-s{}", "w1a1+w4a4@3-soniq-s{}"]
    assert [c.name for c in search.ask()] == [name.format(seed) for seed in (5, 6) for name in once]


def test_a_candidate_without_later_fields_keeps_its_identity() -> None:
    """The hash is that of the candidate before budgets in other units were: stores of then stay valid."""
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
    candidate = Candidate(
        model="m", data="d", data_sha256="0", palette=Palette.parse("w1a1+w4a4"), budget_bits=2.0, schedule=schedule
    )
    assert candidate.identity() == "6d4168bcbfdc0960fcd9972f88da3ef02e44f1f3cb5826048e753b32db0c3d6f"
    costs = ChannelCosts(unit="energy_uj", budget=5, per_channel={"a": (1.0, 2.0)})
    other = candidate.model_copy(update={"budget_bits": None, "costs": costs})
    assert other.name == "w1a1+w4a4@5uj-soniq-s0"
    other = other.model_copy(update={"pins": {"head": Level.parse("w4a4")}, "first_last": "free"})
    assert Candidate.from_json(other.model_dump_json()) == other
