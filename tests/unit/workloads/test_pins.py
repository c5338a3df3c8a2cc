"""Pins take the tensor that a layer reads out of its class; what nothing pins stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from soniq_dse.errors import UserError
from soniq_dse.records.design import Granularity
from soniq_dse.records.palette import Level
from soniq_dse.records.workload import TensorClass, Workload
from soniq_dse.workloads.pins import Ends, with_pins
from soniq_dse.workloads.trace import trace

W4A4, W1A2 = Level.parse("w4a4"), Level.parse("w1a2")


class Residual(nn.Module):
    """Two blocks on one stream; the second has a shortcut of its own and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.shortcut, self.depthwise = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (x + self.one(x)).relu()
        x = (self.depthwise(self.two(x).relu()) + self.shortcut(x)).relu()
        return self.head(self.last(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def workload() -> Workload:
    return trace(Residual(), torch.rand(1, 3, 8, 8), name="residual", input_nonnegative=True, task="")


def class_read_by(workload: Workload, module: str) -> TensorClass:
    (found,) = (c for c in workload.tensor_classes if module in c.consumers)
    return found


def test_nothing_asked_is_the_trace_itself(workload: Workload) -> None:
    assert with_pins(workload, {}) is workload
    again = with_pins(workload, {"stem": Level.parse("w8a8")})
    assert again.tensor_classes == workload.tensor_classes


def test_a_pin_takes_one_tensor_out_of_its_class(workload: Workload) -> None:
    stream = class_read_by(workload, "one")
    assert set(stream.consumers) == {"one", "two", "shortcut"}
    pinned = with_pins(workload, {"two": W1A2})
    found = class_read_by(pinned, "two")
    assert set(found.consumers) == {"two", "shortcut"}, "both read one tensor"
    assert (found.pinned_bits, found.pinned_level) == ((1, 2), W1A2)
    assert class_read_by(pinned, "one").consumers == ("one",)
    assert class_read_by(pinned, "one").pinned_bits is None
    assert all(c.nonnegative for c in pinned.tensor_classes)
    assert with_pins(pinned, {"two": W1A2}) == pinned


@pytest.mark.parametrize(("ends", "bits"), [(None, 8), (W4A4, 4), (W1A2, (1, 2)), ("free", None)])
def test_first_and_last(workload: Workload, ends: Ends, bits: object) -> None:
    found = with_pins(workload, {}, ends)
    assert [class_read_by(found, name).pinned_bits for name in ("stem", "head")] == [bits, bits]
    assert class_read_by(found, "depthwise").pinned_bits == 8
    assert class_read_by(found, "stem").nonnegative
    explicit = with_pins(workload, {"head": Level.parse("w2a2"), "depthwise": W4A4}, ends)
    assert [class_read_by(explicit, name).pinned_bits for name in ("stem", "head", "depthwise")] == [bits, 2, 4]


@pytest.mark.parametrize("granularity", ["layer", "free"])
def test_apart_every_tensor_that_is_read_is_a_class(workload: Workload, granularity: Granularity) -> None:
    found = with_pins(workload, {"last": W4A4}, granularity=granularity)
    readers = [c.consumers for c in found.tensor_classes]
    assert readers == [("stem",), ("one",), ("two", "shortcut"), ("depthwise",), ("last",), ("head",)]
    assert [c.pinned_bits for c in found.tensor_classes] == [8, None, None, 8, 4, 8]
    assert all(c.nonnegative for c in found.tensor_classes)


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"haed": W4A4}, "pin: layer: expected a known name, got 'haed'; nearest valid choice: 'head'"),
        (
            {"two": W4A4, "shortcut": W1A2},
            "expected one level for all layers that read .*, got w1a2 for shortcut and w4",
        ),
    ],
)
def test_refused(workload: Workload, pins: dict[str, Level], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_pins(workload, pins)
