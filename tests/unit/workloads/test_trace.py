"""trace: graphs, tensor classes, pins, signs, and reasons for what stays in floating point."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from traced_nets import Function, conv, read_by, reasons, traced

from soniq_dse.errors import UserError
from soniq_dse.records.workload import Conv2dLayer, GemmLayer


def test_plain_net() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), stride=(2, 1), padding=(1, 2)), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Dropout(), nn.Conv2d(4, 6, 3, dilation=(1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 3 * 2, 5),
        nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    workload = traced(model, 2, 1, 23, 13)
    assert [(node.name, node.op) for node in workload.nodes] == [
        ("input", "input"), ("0", "conv2d"), ("1", "batch_norm"), ("2", "relu"), ("3", "max_pool2d"),
        ("5", "conv2d"), ("6", "relu"), ("7", "flatten"), ("8", "linear"), ("9", "relu"), ("10", "linear"),
    ]  # fmt: skip
    assert workload.unsupported == ()
    assert workload.layers[:2] == (
        Conv2dLayer(
            name="0", batch=2, in_channels=1, out_channels=4, height=23, width=13, kernel=(3, 5), stride=(2, 1),
            padding=(1, 2),
        ),
        Conv2dLayer(
            name="5", batch=2, in_channels=4, out_channels=6, height=5, width=6, kernel=(3, 3), dilation=(1, 2)
        ),
    )  # fmt: skip
    assert workload.layers[2:] == (GemmLayer(name="8", m=2, n=5, k=36), GemmLayer(name="10", m=2, n=3, k=5))
    for node in workload.nodes:
        if isinstance(node.layer, Conv2dLayer):
            assert node.shape == (2, node.layer.out_channels, *node.layer.out_size)
    assert workload.node("3").attributes == {"kernel": [3, 3], "stride": [2, 2]}
    assert [c.model_dump() for c in workload.tensor_classes] == [
        {
            "name": "input", "tensors": ("input",), "channels": 1, "nonnegative": True, "consumers": ("0",),
            "pinned_bits": 8,
        },
        {
            "name": "3", "tensors": ("0", "1", "2", "3"), "channels": 4, "nonnegative": True, "consumers": ("5",),
            "pinned_bits": None,
        },
        {
            "name": "7", "tensors": ("5", "6", "7"), "channels": 6, "nonnegative": True, "consumers": ("8",),
            "pinned_bits": None,
        },
        {"name": "9", "tensors": ("9",), "channels": 5, "nonnegative": True, "consumers": ("10",), "pinned_bits": 8},
    ]  # fmt: skip
    assert workload.node("7").attributes == {"features_per_channel": 6}


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(conv(1, 2), nn.BatchNorm2d(2), nn.Dropout())
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced(model, 1, 1, 4, 4)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_residual_adds_join_classes() -> None:
    def forward(self: Function, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.b(functional.relu(self.a(x))))
        y = self.c(x)
        return self.head((y + self.d(x)).relu().mean((2, 3)))

    parts = {"stem": conv(3, 8), "a": conv(8, 6), "b": conv(6, 8), "c": conv(8, 10), "d": nn.Conv2d(8, 10, 1)}
    net = Function(forward, **parts, head=nn.Linear(10, 2))
    workload = traced(net, 1, 3, 8, 8)
    stream = read_by(workload, "a")
    assert stream.consumers == ("a", "c", "d")
    assert set(stream.tensors) == {"stem", "relu", "b", "add", "relu_3"}
    assert read_by(workload, "b").tensors == ("a", "relu_2")
    # The head reads a pinned class: it does not pin the convolutions that share its channel order.
    assert [(c.consumers, c.pinned_bits) for c in workload.tensor_classes] == [
        (("stem",), 8), (("a", "c", "d"), None), (("b",), None), (("head",), 8),
    ]  # fmt: skip
    assert [node.op for node in workload.nodes[-3:]] == ["avg_pool2d", "flatten", "linear"]
    assert workload.nodes[-2].shape == (1, 10)
    assert workload.unsupported == ()


def test_in_place_calls_reach_every_later_reader() -> None:
    def forward(self: Function, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        z = self.relu(y)
        return self.b(z) + self.c(y)

    net = Function(forward, a=conv(1, 2), relu=nn.ReLU(inplace=True), b=conv(2, 2), c=conv(2, 2))
    workload = traced(net, 1, 1, 4, 4)
    assert workload.node("b").inputs == workload.node("c").inputs == ("relu",)


def test_depthwise_convolution_is_pinned_and_pins_nothing_else() -> None:
    net = nn.Sequential(
        conv(1, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1),
        nn.ReLU(), conv(4, 2),
    )  # fmt: skip
    workload = traced(net, 1, 1, 4, 4)
    assert workload.layers[2].n_groups == 8
    assert {c.consumers: c.pinned_bits for c in workload.tensor_classes} == {
        ("0",): 8, ("2",): None, ("4",): 8, ("6",): None, ("8",): 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "op", "reason"),
    [
        (nn.MaxPool2d(3, 2, padding=1), "max_pool2d", ""),
        (nn.AvgPool2d(3, 2, padding=1), "avg_pool2d", "a padded mean"),
        (nn.MaxPool2d(2, ceil_mode=True), "max_pool2d", "ceil mode"),
        (nn.AvgPool2d(2, divisor_override=3), "avg_pool2d", "divisor"),
        (nn.AdaptiveAvgPool2d(2), "adaptive_avg_pool2d", r"from \[7, 7\] to \[2, 2\]"),
        (nn.AdaptiveAvgPool2d(7), "avg_pool2d", ""),
        (nn.AvgPool2d(7), "avg_pool2d", ""),
        (nn.MaxPool2d((1, 7), ceil_mode=True), "max_pool2d", ""),
    ],
)
def test_pools(pool: nn.Module, op: str, reason: str) -> None:
    workload = traced(nn.Sequential(pool), 1, 2, 7, 7)
    assert workload.nodes[1].op == op
    assert re.search(reason, reasons(workload).get("0", "")) if reason else not workload.unsupported


def test_flatten_in_disguise() -> None:
    for reshape in (lambda x: x.view(x.shape[0], -1), lambda x: x.reshape(2, 48), lambda x: torch.flatten(x, 1)):
        net = Function(lambda self, x, r=reshape: self.fc(r(self.a(x))), a=conv(1, 3), fc=nn.Linear(48, 2))
        workload = traced(net, 2, 1, 4, 4)
        assert [node.op for node in workload.nodes] == ["input", "conv2d", "flatten", "linear"]
        assert read_by(workload, "fc").channels == 3
    partly = traced(nn.Sequential(conv(1, 3), nn.Flatten(2), nn.Linear(16, 5)), 2, 1, 4, 4)
    assert reasons(partly) == {"1": "moves data; the integer network has no such operator"}
    assert read_by(partly, "2").channels == 16


def shared_layer() -> nn.Module:
    return Function(lambda self, x: self.b(self.a(self.a(x))), a=conv(2, 2), b=conv(2, 2))


def tied_weights() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ("model", "shape", "node", "reason"),
    [
        (shared_layer(), (1, 2, 4, 4), "a_2", "read 2 times"),
        (tied_weights(), (1, 4), "1", "read 2 times"),
        (
            Function(lambda self, x: functional.conv2d(x, self.w), w=nn.Parameter(torch.zeros(2, 1, 3, 3))),
            (1, 1, 4, 4), "conv2d", "'w' belongs to Function",
        ),
        (
            Function(lambda self, x: functional.linear(x, self.a.weight), a=nn.Linear(4, 2)),
            (1, 4), "a", "without calling",
        ),
        (
            Function(lambda self, x: functional.linear(x, 2 * self.a.weight), a=nn.Linear(4, 2)),
            (1, 4), "linear", "is computed",
        ),
        (
            Function(lambda self, x: x @ self.w, w=nn.Parameter(torch.zeros(4, 2))),
            (1, 4), "matmul", "outside nn.Linear",
        ),
        (nn.Sequential(conv(1, 2), nn.Linear(4, 3)), (1, 1, 4, 4), "1", "does not hold its channels"),
        (nn.Sequential(nn.Conv1d(2, 3, 3)), (1, 2, 8), "0", "only two-dimensional"),
        (nn.Sequential(nn.ConvTranspose2d(2, 3, 3)), (1, 2, 8, 8), "0", "only two-dimensional"),
        (nn.Sequential(nn.Conv2d(2, 3, 2, padding="same")), (1, 2, 8, 8), "0", "side to side"),
        (nn.Sequential(conv(1, 2)), (1, 4, 4), "0", "no batch axis"),
        (Function(lambda self, x: self.a(x)[0], a=nn.LSTM(4, 4)), (3, 1, 4), "a_3", "no such operator"),
        (nn.Sequential(conv(1, 2), nn.GroupNorm(1, 2)), (1, 1, 4, 4), "1", "statistics"),
        (nn.Sequential(nn.BatchNorm2d(1), conv(1, 2)), (1, 1, 4, 4), "0", "follows input"),
        (nn.Sequential(conv(1, 2), nn.ReLU(), nn.BatchNorm2d(2)), (1, 1, 4, 4), "2", "follows relu"),
        (nn.Sequential(conv(1, 2), nn.BatchNorm2d(2, track_running_stats=False)), (1, 1, 4, 4), "1", "statistics"),
        (
            Function(lambda self, x: self.bn(y := self.a(x)) + y, a=conv(1, 2), bn=nn.BatchNorm2d(2)),
            (1, 1, 4, 4), "bn", "other readers",
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect")), (1, 1, 4, 4), "0.pad", "moves data"),
        (nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Softmax(1)), (1, 4), "2", "exponentials"),
        (Function(lambda self, x: functional.dropout(x)), (1, 4), "dropout", "drops at random"),
        (Function(lambda self, x: x + self.a(x)[:, :1], a=nn.Linear(4, 2)), (1, 4), "add", "of one shape"),
        (Function(lambda self, x: torch.add(x, self.a(x), alpha=2), a=nn.Linear(4, 4)), (1, 4), "add", "unscaled"),
    ],
)  # fmt: skip
def test_what_stays_in_floating_point_has_its_reason(
    model: nn.Module, shape: tuple[int, ...], node: str, reason: str
) -> None:
    workload = traced(model, *shape)
    assert reason in reasons(workload)[node]
    assert all(node not in c.consumers for c in workload.tensor_classes)


def test_no_grad_part_is_named() -> None:
    def forward(self: Function, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)

    workload = traced(Function(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), 1, 4)
    assert any("no_grad" in reason for reason in reasons(workload).values())
    assert [layer.name for layer in workload.layers] == ["b"]


class OwnAttention(nn.Module):
    """One head, post-norm, with separate projections."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        scores = torch.bmm(self.q(y), self.k(y).transpose(1, 2)) / 4
        x = x + self.o(torch.bmm(scores.softmax(-1), self.v(y)))
        return x + self.fc2(torch.relu(self.fc1(self.norm2(x))))


def test_transformer_block() -> None:
    workload = traced(nn.Sequential(OwnAttention(), OwnAttention(), nn.Linear(16, 3)), 2, 5, 16, nonnegative=False)
    found = reasons(workload)
    assert "multiplies activations by activations" in found["0.bmm"]
    assert "multiplies activations by activations" in found["1.bmm_2"]
    assert "0.norm1" not in found
    assert "exponentials" in found["1.softmax"]
    assert workload.layers[0] == GemmLayer(name="0.q", m=10, n=16, k=16)
    assert read_by(workload, "1.q").consumers == ("1.q", "1.k", "1.v")
    assert read_by(workload, "1.q").pinned_bits is None
    assert read_by(workload, "0.q").pinned_bits == 8
    assert read_by(workload, "1.fc2").nonnegative
    assert not read_by(workload, "1.fc1").nonnegative
    assert read_by(workload, "2").consumers == ("2",)
    assert read_by(workload, "2").pinned_bits == 8
    layers = {layer.name for layer in workload.layers}
    assert {reader for c in workload.tensor_classes for reader in c.consumers} == layers


def test_multihead_attention_module() -> None:
    workload = traced(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, 5, 16, nonnegative=False)
    found = reasons(workload)
    assert "attention multiplies" in found["self_attn.scaled_dot_product_attention"]
    assert "'self_attn.in_proj_weight' belongs to MultiheadAttention" in found["self_attn.linear"]
    assert "without calling the module self_attn.out_proj" in found["self_attn.out_proj"]
    assert {reader for c in workload.tensor_classes for reader in c.consumers} == {"linear1", "linear2"}


class Block(nn.Module):
    """A residual block of one or two convolutions, with a 1x1 shortcut where the width changes."""

    def __init__(self, i: int, o: int, deep: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(i, o), nn.ReLU(), conv(o, o)) if deep else conv(i, o)
        self.shortcut = nn.Identity() if i == o else nn.Conv2d(i, o, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


@settings(max_examples=12, deadline=None)
@given(blocks=st.lists(st.tuples(st.sampled_from([2, 3, 5]), st.booleans()), min_size=1, max_size=4))
def test_classes_of_random_residual_nets(blocks: list[tuple[int, bool]]) -> None:
    widths = [4, *(width for width, _ in blocks)]
    body = [Block(widths[i], widths[i + 1], deep) for i, (_, deep) in enumerate(blocks)]
    head = nn.Linear(16 * widths[-1], 3)
    workload = traced(nn.Sequential(conv(1, 4), nn.ReLU(), *body, nn.Flatten(), head), 1, 1, 4, 4)
    assert workload.unsupported == ()
    members = [tensor for c in workload.tensor_classes for tensor in c.tensors]
    assert len(members) == len(set(members))
    readers = [reader for c in workload.tensor_classes for reader in c.consumers]
    assert sorted(readers) == sorted(layer.name for layer in workload.layers)
    for layer in workload.layers:
        read = read_by(workload, layer.name)
        assert workload.node(layer.name).inputs[0] in read.tensors
        assert read.channels * (16 if isinstance(layer, GemmLayer) else 1) == layer.segment_channels
        assert read.nonnegative
    for node in workload.nodes:
        if node.op == "add" and (joined := workload.class_of(node.name)):
            assert set(node.inputs) <= set(joined.tensors)


@torch.library.custom_op("soniq_dse_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    """Has no abstract implementation, so torch.export refuses it."""
    return x * 2


def test_torch_fx_takes_what_torch_export_refuses() -> None:
    def forward(self: Function, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.ops.soniq_dse_test.twice(functional.relu(self.bn(self.a(x)))))

    net = Function(forward, a=conv(1, 4), bn=nn.BatchNorm2d(4), b=conv(4, 2))
    with pytest.raises(RuntimeError, match="fake impl"):
        torch.export.export(net.eval(), (torch.zeros(1, 1, 4, 4),), strict=False)
    workload = traced(net, 1, 1, 4, 4)
    assert [node.op for node in workload.nodes] == [
        "input", "conv2d", "batch_norm", "relu", "soniq_dse_test.twice", "conv2d",
    ]  # fmt: skip
    assert [node.module for node in workload.nodes if node.layer] == ["a", "b"]
    assert [c.consumers for c in workload.tensor_classes] == [("a",), ("b",)]
    assert list(reasons(workload)) == ["soniq_dse_test.twice"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Function(lambda self, x: x if x.sum() > 0 else -x), "no branch on the values of tensors, got torch.export: "),
        (nn.Linear(3, 2), r"takes an input of shape \[1, 4\]"),
        (Function(lambda self, x: (x, x)), "one tensor as its output, got 2 values"),
        (Function(lambda self, x: 3), "one tensor as its output, got int"),
        (Function(lambda self, x: 1 / 0), "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_traced(model: nn.Module, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=message) as error:
        traced(model, 1, 4)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
