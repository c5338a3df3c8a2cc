"""What a training loop may add: 16-bit autocast, channels-last, ``torch.compile``, several processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import soniq_dse
from soniq_dse.qat.session import Session
from soniq_dse.qat.training import deterministic

STEPS = 6
"""Three of noise, three of fine-tuning."""
INPUTS = torch.rand(STEPS, 16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS.mean(dim=(2, 3, 4)) > 0.5).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 2),
    )  # fmt: skip


def wrapped() -> tuple[nn.Module, Session, torch.optim.Optimizer]:
    model = network().train()
    session = soniq_dse.quantize(model, "w1a1+w4a4", INPUTS[0], budget_bits=2.0)
    optimizer = torch.optim.SGD(session.parameter_groups(1e-2))
    session.attach(optimizer, noise_steps=STEPS // 2)
    return model, session, optimizer


def losses(call: Callable[[nn.Module, torch.Tensor], torch.Tensor], rank: int = 0, ranks: int = 1) -> list[float]:
    """Of every step of a short training; ``call`` runs the model."""
    model, session, optimizer = wrapped()
    found = []
    with deterministic(1):
        for step in range(STEPS):
            if step == STEPS // 2:
                session.finetune()
            inputs, targets = INPUTS[step][rank::ranks], TARGETS[step][rank::ranks]
            loss = nn.functional.cross_entropy(call(model, inputs).float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    return found


def plain(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs)


def in_16_bits(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(inputs)


def channels_last(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("call", [in_16_bits, channels_last])
def test_trains_as_in_fp32(call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
    """Noise and rounding see other last bits, so single codes differ: losses near, not equal; bfloat16 has 8 bits."""
    assert losses(call) == pytest.approx(losses(plain), abs=3e-3)


@pytest.mark.slow
def test_compiled_trains_as_without() -> None:
    """Without the last stage, which makes C++ of the graph and takes a minute."""
    compiled: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}

    def call(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return compiled.setdefault(id(model), torch.compile(model, backend="aot_eager"))(inputs)

    assert losses(call) == pytest.approx(losses(plain), abs=3e-3)


@pytest.mark.slow
def test_processes_side_by_side_end_in_the_same_network(tmp_path: Path) -> None:
    """Two of them, each with half of every batch; wrapped again where the parameters that train change."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(train_side_by_side, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    assert [name for name in first if "running" not in name and not torch.equal(first[name], second[name])] == []


def train_side_by_side(rank: int, port: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    parallel: list[nn.Module] = []
    phases: list[str] = []
    models: list[nn.Module] = []

    def call(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        trainable = sum(parameter.requires_grad for parameter in model.parameters())
        if not parallel or phases[-1] != str(trainable):
            models[:] = [model]
            phases.append(str(trainable))
            parallel[:] = [nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)]
        return parallel[0](inputs)

    losses(call, rank, 2)
    torch.save(models[0].state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
