"""A search by densities: where good designs lie more often than bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soniq_dse.search._optuna import OptunaBase

if TYPE_CHECKING:
    import optuna

STARTUP = 5
"""Designs drawn at random before the densities say anything."""


class Tpe(OptunaBase):
    """Multi-objective TPE (Ozaki et al., "Multiobjective tree-structured Parzen estimator", 2022), by optuna."""

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """See ``OptunaBase``."""
        import optuna

        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
