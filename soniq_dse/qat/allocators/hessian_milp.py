"""HAWQ's allocation: the trace of each layer's Hessian times its rounding error, minimised by an integer program."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.hardening import harden
from soniq_dse.qat.sensitivity import Probe

N_DRAWS = 8
GAP = 1e-6
"""Of the integer program, relative."""


class HessianMilp(Base):
    """Adds ``mean trace of the layer's Hessian * |Q(w) - w|^2`` per channel and level, and minimises the sum.

    The trace is Hutchinson's estimate E[v^T H v] over random signs v. Source: HAWQ-V2 (Dong et al., arXiv 1911.03852)
    for the measure, HAWQ-V3 (Yao et al., arXiv 2011.10680) for the integer program, here over channel groups in place
    of whole layers. What the program's whole groups leave of the budget is spent greedily.
    """

    learned = False
    measured = True

    def measure(self, probe: Probe) -> Logits:
        """See ``Base.measure``: two backward passes per draw."""
        traces = [0.0] * len(probe.weights)
        weights = [read.weight for read in probe.weights]
        n_batches = 0
        with probe.passing():
            for index, (inputs, targets) in enumerate(probe.batches(N_DRAWS)):
                gradients = torch.autograd.grad(probe.loss(inputs, targets), weights, create_graph=True)
                signs = probe.signs(index)
                products = torch.autograd.grad(gradients, weights, signs)
                for place, (sign, product) in enumerate(zip(signs, products, strict=True)):
                    traces[place] += float((sign * product).sum())
                n_batches += 1
        added = probe.nothing()
        with torch.no_grad():
            for read, trace in zip(probe.weights, traces, strict=True):
                mean = max(trace / n_batches, 0.0) / read.weight.numel()
                for level, error in enumerate(read.quantizer.errors(read.weight)):
                    added[read.tensor_class][:, level] += read.quantizer.by_channel(mean * error.square())
        return probe.logits(added)

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        """See ``Base.allocate``."""
        if logits is None:
            raise ValueError("logits: expected what measure saw, got None")
        return harden(problem, logits, _program(problem, logits))


def _program(problem: Problem, logits: Logits) -> Levels:
    """The best level for every group of channels: those of a class that gain alike lie together."""
    n_levels = len(problem.palette.levels)
    groups = []
    for size in problem.classes:
        gain = logits[size.name][:, -1] - logits[size.name][:, 0]
        order = np.argsort(-gain, kind="stable")
        step = problem.group(size)
        groups += [(size, order[at : at + step]) for at in range(0, size.channels, step)]
    loss = np.array([-logits[size.name][chosen].sum(axis=0) for size, chosen in groups])
    costs = np.array([[len(chosen) * cost for cost in problem.channel_costs(size)] for size, chosen in groups])
    rows = np.repeat(np.arange(len(groups)), n_levels)
    one_each = coo_array((np.ones(loss.size), (rows, np.arange(loss.size))))
    constraints = [LinearConstraint(one_each.tocsr(), 1, 1)]
    if problem.limit is not None:  # as a share: the solver's tolerances are absolute
        constraints.append(LinearConstraint(costs.reshape(1, -1) / problem.limit, 0, 1))
    scale = max(np.abs(loss).max(), 1e-30)
    found = milp(
        loss.ravel() / scale, integrality=np.ones(loss.size), bounds=Bounds(0, 1), constraints=constraints,
        options={"mip_rel_gap": GAP},
    )  # fmt: skip
    chosen_level = found.x.reshape(loss.shape).argmax(axis=1)
    levels = {size.name: np.zeros(size.channels, dtype=np.int64) for size in problem.classes}
    for (size, chosen), level in zip(groups, chosen_level, strict=True):
        levels[size.name][chosen] = level
    return {name: tuple(map(int, of_class)) for name, of_class in levels.items()}
