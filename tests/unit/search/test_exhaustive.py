"""The order of the exhaustive search, written out."""

from __future__ import annotations

from soniq_dse.records.design import Candidate, Schedule
from soniq_dse.records.palette import Palette, PaletteChoice
from soniq_dse.search import Space
from soniq_dse.search.exhaustive import Exhaustive


def test_first_budgets_then_second_then_the_next_seed() -> None:
    budgets = {"w4a4": (), "w1a1+w4a4": (2.0, 3.0), "w1a1": ()}
    choices = tuple(
        PaletteChoice(palette=Palette.parse(name), explored=True, reason="test", budgets_bits_per_weight=values)
        for name, values in budgets.items()
    )
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
    template = Candidate(model="m", data="d", data_sha256="0", palette=choices[0].palette, schedule=schedule)
    search = Exhaustive(Space(template=template, choices=choices, seeds=(5, 6)))
    names = []
    while (candidate := search.ask()) is not None:
        names.append(candidate.name)
    once = ["w4a4-soniq-s{}", "w1a1+w4a4@2-soniq-s{}", "w1a1-soniq-s{}", "w1a1+w4a4@3-soniq-s{}"]
    assert names == [name.format(seed) for seed in (5, 6) for name in once]
