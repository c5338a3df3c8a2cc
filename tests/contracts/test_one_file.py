"""A new unit of any kind is one new file: dropped into a copy of the tree, the contract suites hold it unasked.

Kernels have a test of their own beside their suite: ``tests/kernels/test_kernel_contract.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

UNITS = {
    "formats": '''
"""Ternary: -1, 0 and 1 in two bits."""
from soniq_dse.formats import Base, Grid

class Dropped(Base):
    """The integer is the code less one."""
    family = "dropped"
    widths = (2,)

    @classmethod
    def grid(cls, bits: int) -> Grid:
        return Grid(multiplier=1, offset=1, lo=0, hi=2)
''',
    "quantizers": '''
"""Another name for the straight-through gradient."""
from soniq_dse.quantizers.ste import StraightThrough

class Dropped(StraightThrough):
    """As its base."""
''',
    "qat/allocators": '''
"""The channels of a class in turn: the last of them are the widest."""
from soniq_dse.qat.allocators import Base, Levels, Logits, Problem
from soniq_dse.qat.allocators.uniform import Uniform

class Dropped(Base):
    learned = False

    def allocate(self, problem: Problem, logits: Logits | None) -> Levels:
        return {name: levels[::-1] for name, levels in Uniform().allocate(problem, None).items()}
''',
    "workloads/models": '''
"""Two layers of a user's own."""
from torch import nn
from soniq_dse.records.design import Schedule
from soniq_dse.workloads import models
from soniq_dse.workloads.models.blocks import plain_cnn, scaled

class Dropped(models.Base):
    dataset = "digits"
    input_shape = (1, 8, 8)
    schedule = Schedule(baseline_epochs=1, noise_epochs=1, finetune_epochs=1)

    def build(self, width: float = 1.0) -> nn.Module:
        return plain_cnn(1, ((scaled(32, width), scaled(32, width)),), image_size=8, n_classes=10)
''',
    "workloads/datasets": '''
"""Digits once more."""
from soniq_dse.workloads.datasets.digits import Digits

class Dropped(Digits):
    """As its base."""
''',
    "search": '''
"""The reverse of another strategy."""
from collections.abc import Sequence
from soniq_dse.records.design import Candidate
from soniq_dse.search import Base

class Dropped(Base):
    def propose(self) -> Sequence[Candidate]:
        return [candidate for candidate in reversed(self.space.candidates) if self.is_new(candidate)]
''',
    "cost": '''
"""A core that gets nothing done at once."""
from soniq_dse.cost import Base, LoopCost
from soniq_dse.records.cost import HotLoop
from soniq_dse.records.hardware import HardwareModel

class Dropped(Base):
    def loop_cost(self, loop: HotLoop, hw: HardwareModel) -> LoopCost:
        cycles = 8.0 * len(loop.instructions)
        return LoopCost(cycles, cycles, "issue", "one at a time", 0.0)
''',
    "export": '''
"""ONNX by another name."""
from soniq_dse.export.onnx import Onnx

class Dropped(Onnx):
    """As its base."""
''',
    "report/panels": '''
"""A panel of one sentence."""
from markupsafe import Markup
from soniq_dse.records.front import Report
from soniq_dse.report.panels import Base

class Dropped(Base):
    title = "Dropped in"
    help = "Counts the points."
    order = 95
    fields = ("front",)

    def fragment(self, report: Report) -> Markup:
        return Markup("<p>{} points</p>").format(len(report.front.points))
''',
}
"""Package below ``soniq_dse/`` -> the text of a unit for it."""

MACHINE = "schema_version: 1\nname: dropped\ntitle: a machine of one's own\nextends: avx2\n"


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The tree as the contract suites need it, with a file more in each place."""
    tree = tmp_path / "tree"
    for name in ("soniq_dse", "hwmodels", "tests/contracts"):
        shutil.copytree(repository / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (repository / "pyproject.toml", *(repository / "tests").glob("*.py")):
        shutil.copy(path, tree / path.relative_to(repository))
    for package, text in UNITS.items():
        (tree / "soniq_dse" / package / "dropped.py").write_text("from __future__ import annotations\n" + text)
    (tree / "hwmodels" / "dropped.yaml").write_text(MACHINE)
    return tree


def test_a_new_file_is_found_and_held_to_the_contract_of_its_kind(copy: Path) -> None:
    command = [sys.executable, "-m", "pytest", "tests/contracts", "-k", "dropped", "-rA", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = Counter(re.findall(r"^PASSED tests/contracts/test_(\w+)\.py::\S*dropped", done.stdout, re.MULTILINE))
    kinds = {package.rpartition("/")[2] for package in UNITS} - {"cost", "export"}
    kinds |= {"cost_models", "exporters", "machines"}
    assert kinds == set(passed), f"passed: {passed}"
