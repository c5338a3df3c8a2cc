"""What the strategies of optuna share: the space as two ordered parameters, and one study."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from soniq_dse.records.design import Candidate
from soniq_dse.search import Base, Space

if TYPE_CHECKING:
    import optuna

TRIES = 64
"""Suggestions in a row that name what was asked for before, until the nearest other design is taken."""


class OptunaBase(Base):
    """A design is the rank of its model and the rank of its palette and budget, both by predicted latency.

    One design a batch: each is told before the next is drawn. What a sampler draws again is told again, at no cost.
    """

    def __init__(self, space: Space) -> None:
        import optuna

        super().__init__(space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._places = self._placed()
        self._at = {place: candidate for candidate, place in self._places.items()}
        self._study = optuna.create_study(directions=self._directions(), sampler=self.sampler(space.seed))
        self._open: tuple[optuna.trial.Trial, Candidate] | None = None

    @abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """What draws the next design."""

    def propose(self) -> Sequence[Candidate]:
        """One design."""
        self._tell_last()
        left = [candidate for candidate in self.space.candidates if self.is_new(candidate)]
        if not left:
            return []
        for _ in range(TRIES):
            trial, place = self._drawn()
            candidate = self._at.get(place)
            if candidate is not None and self.is_new(candidate):
                break
            if candidate is None:
                self._study.tell(trial, state=_failed())
            else:
                self._tell(trial, candidate)
        else:
            trial, place = self._drawn()
            candidate = min(left, key=lambda c: (_distance(self._places[c], place), self._places[c]))
        assert candidate is not None
        self._open = trial, candidate
        return [candidate]

    def _drawn(self) -> tuple[optuna.trial.Trial, tuple[int, int]]:
        trial = self._study.ask()
        width = trial.suggest_int("model", 0, max(w for w, _ in self._at))
        return trial, (width, trial.suggest_int("palette", 0, max(p for _, p in self._at)))

    def _tell_last(self) -> None:
        if self._open is not None:
            self._tell(*self._open)
            self._open = None

    def _tell(self, trial: optuna.trial.Trial, candidate: Candidate) -> None:
        result = self.results.get(candidate)
        if result is None or result.metric_val is None or result.latency_us is None:
            self._study.tell(trial, state=_failed())
        else:
            self._study.tell(trial, (result.metric_val, result.latency_us))

    def _directions(self) -> list[str]:
        return ["maximize" if self.space.direction == "max" else "minimize", "minimize"]

    def _placed(self) -> dict[Candidate, tuple[int, int]]:
        """(rank of the model, rank of palette and budget) of every candidate."""
        latency = {c: self.prior(c).latency_us or 0.0 for c in self.space.candidates}

        def ranks(key_of: dict[Candidate, tuple[object, ...]]) -> dict[tuple[object, ...], int]:
            groups: dict[tuple[object, ...], list[float]] = {}
            for candidate, key in key_of.items():
                groups.setdefault(key, []).append(latency[candidate])
            ordered = sorted(groups, key=lambda key: sum(groups[key]) / len(groups[key]))
            return {key: rank for rank, key in enumerate(ordered)}

        models = {c: (c.model,) for c in self.space.candidates}
        palettes = {c: (c.asked, c.allocator) for c in self.space.candidates}
        of_model, of_palette = ranks(models), ranks(palettes)  # type: ignore[arg-type]
        return {c: (of_model[models[c]], of_palette[palettes[c]]) for c in self.space.candidates}


def _distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _failed() -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState.FAIL
