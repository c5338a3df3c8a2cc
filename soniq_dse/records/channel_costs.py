"""What a channel of each tensor class costs at each level, and how much all of them may cost together."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from soniq_dse.records.base import Record

CostUnit = Literal["bits", "latency_us", "energy_uj"]


class ChannelCosts(Record):
    """A budget in a unit of its own. Training reads it and knows nothing of where it came from.

    ``per_channel`` holds, by tensor class, the cost of one channel at every level, in palette order and never falling
    (where a wider level is cheaper, whoever makes the table gives it the narrower one's cost). ``budget`` bounds
    ``fixed``, what no level changes, and the sum over all channels of these classes together.
    """

    unit: CostUnit
    budget: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    per_channel: dict[str, tuple[float, ...]]
    fixed: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _costs_rise(self) -> ChannelCosts:
        for name, costs in self.per_channel.items():
            if not costs or not all(math.isfinite(cost) and cost > 0 for cost in costs):
                raise ValueError(f"per_channel.{name}: expected a cost above 0 for every level, got {list(costs)}")
            if any(wide < narrow for narrow, wide in itertools.pairwise(costs)):
                raise ValueError(f"per_channel.{name}: expected costs that never fall, got {list(costs)}")
        return self

    @property
    def budget_text(self) -> str:
        """The budget as names have it: ``30us``, ``5uj``, ``60000bits``."""
        return f"{self.budget:g}{self.unit.rsplit('_', 1)[-1]}"
