"""Where a training stands, kept so that a killed one goes on to the same bits: safetensors and JSON, never pickle."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from soniq_dse.records.design import EpochRecord

if TYPE_CHECKING:
    from soniq_dse.qat.fake_quant import NoiseKeys
    from soniq_dse.store import Store

EVERY_SECONDS = 30.0
"""The most of a training that a kill can cost, where a checkpoint is quickly written."""
SHARE_OF_TIME = 0.02
"""The most of a training's time that its checkpoints may take."""


@dataclass
class Moving:
    """All that a step of training changes.

    ``moved`` are tensors that the soft assignment or a running average moves in place; ``keys`` number the noise.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    moved: dict[str, Tensor] = field(default_factory=dict)
    keys: NoiseKeys | None = None

    def tensors(self) -> dict[str, Tensor]:
        """By name, torch's generator with them."""
        found = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        found |= {f"moved/{name}": tensor for name, tensor in self.moved.items()}
        for place, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{place}/{name}": tensor for name, tensor in state.items()}
        return {name: tensor.detach().cpu() for name, tensor in found.items()} | {"rng": torch.get_rng_state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put everything back to what ``tensors`` gave."""
        of: dict[str, dict[str, Tensor]] = {"model": {}, "moved": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            of.setdefault(kind, {})[rest] = tensor
        self.model.load_state_dict(of["model"])
        for name, tensor in of["moved"].items():
            self.moved[name].copy_(tensor)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in of["optimizer"].items():
            place, _, rest = name.partition("/")
            state.setdefault(int(place), {})[rest] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["rng"])


@dataclass
class Position:
    """The next batch of a phase, the losses of its epoch summed so far, and the epochs that are over."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)


class Checkpoint:
    """The checkpoint of one training, found in ``store`` where an earlier process left it.

    Without a store nothing is found and nothing kept. ``notes`` (JSON) are the caller's: what earlier phases gave.
    """

    def __init__(
        self, store: Store | None = None, kind: str = "design", key: str = "", every_s: float = EVERY_SECONDS
    ) -> None:
        self._store, self._kind, self._key, self._every_s = store, kind, key, every_s
        self._found = _read(store.checkpoint_path(kind, key)) if store is not None else None
        head: dict[str, Any] = {} if self._found is None else self._found[1]
        self.notes: dict[str, Any] = head.get("notes", {})
        self._first_epoch: int = head.get("first_epoch", -1)
        self._seconds_before: float = head.get("seconds", 0.0)
        self._begin = time.perf_counter()
        self._next = self._begin + every_s

    @property
    def seconds(self) -> float:
        """Time spent on the training, by every process that had a part in it."""
        return self._seconds_before + time.perf_counter() - self._begin

    def is_past(self, first_epoch: int) -> bool:
        """Whether the phase that begins with ``first_epoch`` was over."""
        return first_epoch < self._first_epoch

    def resume(self, first_epoch: int, moving: Moving) -> Position:
        """Where the phase goes on, ``moving`` put back to it; its beginning where nothing was found."""
        if self._found is None or first_epoch != self._first_epoch:
            return Position()
        tensors, head = self._found
        self._found = None
        moving.restore({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
        if moving.keys is not None:
            moving.keys.step = head["noise_step"]
        records = [EpochRecord.model_validate(record) for record in head["records"]]
        return Position(head["epoch"], head["batch"], head["loss_sum"], records)

    def keep(self, first_epoch: int, position: Position, moving: Moving) -> None:
        """Write the checkpoint, if it is time to. Nothing of the training changes by it."""
        now = time.perf_counter()
        if self._store is None or now < self._next:
            return
        head = {
            "first_epoch": first_epoch,
            "epoch": position.epoch,
            "batch": position.batch,
            "loss_sum": position.loss_sum,
            "records": [record.to_json_value() for record in position.records],
            "noise_step": moving.keys.step if moving.keys is not None else 0,
            "notes": self.notes,
            "seconds": self.seconds,
        }
        tensors = {name: np.asarray(tensor.numpy(), order="C") for name, tensor in moving.tensors().items()}
        text = json.dumps(head)
        data = save(tensors, {"head": text, "sha256": _digest(tensors, text)})
        self._store.put_checkpoint(self._kind, self._key, data)
        end = time.perf_counter()
        self._next = end + max(self._every_s, (end - now) / SHARE_OF_TIME if self._every_s else 0.0)


Arrays = dict[str, npt.NDArray[Any]]


def _read(path: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """Arrays and head; None where there is no checkpoint, or a damaged one, which is said."""
    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = file.metadata()
        if _digest(arrays, found["head"]) != found["sha256"]:
            raise ValueError("its content does not match its hash")
        return arrays, json.loads(found["head"])
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        print(f"checkpoint {path} is damaged ({error}); the training begins again", file=sys.stderr, flush=True)
        return None


def _digest(arrays: Arrays, head: str) -> str:
    digest = hashlib.sha256(head.encode())
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].dtype.str}:{arrays[name].shape};".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
