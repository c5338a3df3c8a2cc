"""What --model and --data may name, and what they may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from soniq_dse import registry
from soniq_dse.errors import UserError
from soniq_dse.workloads import load_model, load_task, load_workload

OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from soniq_dse.records.design import Schedule
from soniq_dse.workloads import datasets, models
from soniq_dse.workloads.task import Split, Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
    def forward(self, x):
        return self.b(torch.relu(self.a(x)).mean((2, 3)))

def build():
    return Net()

ready = Net()

def fails():
    raise KeyError("no such weight file")

def number():
    return 7

def needs_width(width):
    return Net()

data = TensorDataset(torch.rand(12, 1, 6, 6), torch.arange(12) % 2)
pair = (DataLoader(data, 4), DataLoader(data, 4))

def loaders():
    return pair

def task():
    inputs, targets = data.tensors
    split = Split(inputs.numpy(), targets.numpy())
    return Task("own", split, split, split, n_classes=2)

class OwnModel(models.Base):
    dataset, input_shape, schedule = "digits", (1, 8, 8), Schedule(baseline_epochs=2, noise_epochs=1, finetune_epochs=1)
    def build(self):
        return Net()

class OwnData(datasets.Base):
    input_shape, n_classes, nonnegative = (1, 6, 6), 2, True
    def read(self, folder):
        return task()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's in the current folder."""
    (tmp_path / "soniq_own_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "soniq_own_net"
    sys.modules.pop("soniq_own_net", None)


@pytest.mark.parametrize("attribute", ["build", "Net", "ready"])
def test_own_model(own: str, attribute: str) -> None:
    build, defaults = load_model(f"{own}:{attribute}")
    first, second = build(), build()
    assert isinstance(first, torch.nn.Module)
    assert first is not second
    assert (defaults.data, defaults.input_shape) == (None, None)
    assert torch.equal(first.a.weight, second.a.weight) == (attribute == "ready")
    workload = load_workload(f"{own}:{attribute}", batch=3, data=f"{own}:loaders")
    assert workload.input_shape == (3, 1, 6, 6)
    assert [layer.name for layer in workload.layers] == ["a", "b"]
    assert workload.tensor_classes[0].nonnegative
    assert workload.task == f"{own}:loaders"


def test_own_model_with_defaults(own: str) -> None:
    _, defaults = load_model(f"{own}:OwnModel")
    assert (defaults.data, defaults.input_shape, defaults.schedule.baseline_epochs) == ("digits", (1, 8, 8), 2)
    assert load_workload(f"{own}:OwnModel").input_shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("attribute", "sizes"),
    [("loaders", (10, 2, 12)), ("pair", (10, 2, 12)), ("task", (12, 12, 12)), ("OwnData", (12, 12, 12))],
)
def test_own_data(own: str, attribute: str, sizes: tuple[int, ...]) -> None:
    task = load_task(f"{own}:{attribute}")
    assert (len(task.train), len(task.val), len(task.test)) == sizes
    assert task.n_classes == 2
    assert len(load_task(f"{own}:{attribute}", limit=5).test) == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits_cn", "'digits_cnn'"),
        ("soniq_own_net:biuld", "nearest valid choice: 'build'"),
        ("soniq_own_nte:build", "No module named 'soniq_own_nte'"),
        ("soniq_own_net:fails", "KeyError: 'no such weight file'"),
        ("soniq_own_net:number", "expected a torch.nn.Module, got int"),
        ("soniq_own_net:needs_width", "missing 1 required positional argument: 'width'"),
        ("soniq_own_net:OWN_NUMBER", "known name"),
    ],
)
def test_wrong_models(own: str, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_model(spec)[0]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "nearest valid choice: 'digits'"),
        ("digits:", "no folder after the colon"),
        ("digits:.", "expected no folder"),
        ("fashion-mnist:.", "nearest valid choice: 'fashion_mnist'"),
        ("fashion_mnst:folder", "nearest valid choice: 'fashion_mnist'"),
        ("fashion_mnist:elsewhere", "'elsewhere'"),
        ("/some/folder", "expected a known name"),
        ("", "valid choices: cifar10, digits"),
        ("soniq_own_net:number", r"expected \(train, test\) DataLoaders or a .*Task, got int"),
        ("soniq_own_net:fails", "KeyError"),
        ("soniq_own_net:laoders", "nearest valid choice: 'loaders'"),
    ],
)
def test_wrong_data(own: str, spec: str, message: str) -> None:
    Path("folder").mkdir()
    with pytest.raises(UserError, match=message):
        load_task(spec)


def test_workload_needs_a_shape_and_a_batch(own: str) -> None:
    with pytest.raises(UserError, match="the shape of its input: name its data"):
        load_workload(f"{own}:build")
    with pytest.raises(UserError, match="batch of at least 1, got 0"):
        load_workload("tiny_cnn", batch=0)


def test_workload_at_another_shape() -> None:
    # The number of features of tiny_cnn's last layer holds for 8x8 images alone.
    from soniq_dse.workloads.trace import trace

    with pytest.raises(UserError, match="takes an input of shape"):
        trace(load_model("tiny_cnn")[0](), torch.zeros(1, 1, 12, 12), name="tiny_cnn")


NEW_MODEL = """
from torch import nn
from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models

class Dropped(models.Base):
    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)
    def build(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""


def test_a_new_model_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from soniq_dse.workloads import models

    (tmp_path / "dropped_in.py").write_text(NEW_MODEL)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "dropped_in" in registry.names("model")
    workload = load_workload("dropped_in")
    assert [layer.name for layer in workload.layers] == ["1", "3"]
    sys.modules.pop("soniq_dse.workloads.models.dropped_in")


def test_names_and_data_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from soniq_dse import registry\n"
        "from soniq_dse.workloads import load_task\n"
        "registry.names('model'), load_task('digits', limit=10).data_sha256\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
