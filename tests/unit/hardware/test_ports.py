"""The closed form of the port bound equals the linear program that it solves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from soniq_dse.hardware.load import load_hardware
from soniq_dse.hardware.ports import PortBound, port_bound, port_loads, role_of

PORTS = "abcde"
loads_of = st.dictionaries(
    st.frozensets(st.sampled_from(PORTS), min_size=1), st.floats(0.0, 50.0, allow_subnormal=False), max_size=7
)


def by_linear_program(loads: dict[frozenset[str], float]) -> float:
    """Minimise t with x[i, p] >= 0, sum over p of x[i, p] = load i, sum over i of x[i, p] <= t."""
    items = list(loads.items())
    n = len(items) * len(PORTS)
    cost = np.zeros(n + 1)
    cost[-1] = 1
    equal, at_most = np.zeros((len(items), n + 1)), np.zeros((len(PORTS), n + 1))
    bounds = [(0, None)] * (n + 1)
    for i, (ports, _) in enumerate(items):
        for p, port in enumerate(PORTS):
            column = i * len(PORTS) + p
            equal[i, column] = at_most[p, column] = 1
            if port not in ports:
                bounds[column] = (0, 0)
    at_most[:, -1] = -1
    loads_vector = [load for _, load in items]
    solved = linprog(cost, A_ub=at_most, b_ub=np.zeros(len(PORTS)), A_eq=equal, b_eq=loads_vector, bounds=bounds)
    assert solved.success
    return float(solved.fun)


@given(loads_of)
@settings(max_examples=60, deadline=None)
def test_equals_the_linear_program(loads: dict[frozenset[str], float]) -> None:
    expected = by_linear_program(loads) if loads else 0.0
    assert port_bound(loads).cycles == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(loads_of, st.frozensets(st.sampled_from(PORTS), min_size=1), st.floats(0.0, 10.0))
@settings(max_examples=60, deadline=None)
def test_more_work_is_never_faster(loads: dict[frozenset[str], float], ports: frozenset[str], more: float) -> None:
    added = {**loads, ports: loads.get(ports, 0.0) + more}
    assert port_bound(added).cycles >= port_bound(loads).cycles * (1 - 1e-12)


def test_loads_and_roles() -> None:
    hw = load_hardware("granite_rapids")
    popcount, load = hw.timing("vpopcntq", 512), hw.timing("load", 512)
    assert popcount is not None
    assert load is not None
    assert port_loads([(popcount, 3), (load, 2)]) == {frozenset({"p5"}): 3, frozenset({"p2", "p3"}): 2}
    assert role_of(hw, PortBound(1, ("p2", "p3"))) == "load"
    assert role_of(hw, PortBound(1, ("p2", "p5"))) == "mixed"
    assert PortBound(1, ("p5",)).text == "port p5"
    assert PortBound(1, ("p0", "p5")).text == "ports p0, p5"
