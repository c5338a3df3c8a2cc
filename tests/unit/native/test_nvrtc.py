"""Where the CUDA compiler is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from soniq_dse.errors import MissingCapabilityError
from soniq_dse.native.nvrtc import cuda_folder


def test_an_environment_of_its_own_is_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONIQ_DSE_CUDA", str(tmp_path))
    with pytest.raises(
        MissingCapabilityError, match=r"expected libnvrtc below SONIQ_DSE_CUDA=.*pip install nvidia-cuda"
    ):
        cuda_folder()
    place = tmp_path / "lib/python3.12/site-packages/nvidia/cu13"
    (place / "lib").mkdir(parents=True)
    (place / "lib/libnvrtc.so.13").touch()
    assert cuda_folder() == place
