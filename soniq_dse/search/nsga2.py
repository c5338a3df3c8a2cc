"""An evolutionary search: crossover and mutation of the designs that rank best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soniq_dse.search._optuna import OptunaBase

if TYPE_CHECKING:
    import optuna

POPULATION = 8
"""Small, since every member is a training."""


class Nsga2(OptunaBase):
    """NSGA-II (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002), by optuna."""

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """See ``OptunaBase``."""
        import optuna

        return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
