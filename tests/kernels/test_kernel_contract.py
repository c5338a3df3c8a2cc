"""Every kernel of the catalog against the reference: exact for random shapes, tails, extremes and the deepest sums."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soniq_dse.errors import UserError
from soniq_dse.hardware.host import detect_host
from soniq_dse.kernels import reference
from soniq_dse.kernels.catalog import CPU_FOLDER, MASKED_ENDS, catalog, missing_features, token_bits
from soniq_dse.kernels.library import Kernel, aligned_empty, build_kernel_library, build_kernels, load_kernel, round_up
from soniq_dse.records.cost import KernelSpec

SPECS = catalog()
FEASIBLE_K = 150_000
"""Bounds up to here are reached in a test; a sum that deep takes milliseconds in the scalar kernel."""


def loaded(spec: KernelSpec) -> Kernel:
    missing = missing_features(spec, detect_host().features)
    if missing:
        pytest.skip(f"{spec.symbol}: this machine lacks {', '.join(missing)}")
    return load_kernel(spec)


def codes_of(spec: KernelSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if spec.act == "f32":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, 2 ** token_bits(spec.act), shape).astype(np.uint8)


def weights_of(spec: KernelSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if spec.wgt == "s8":
        return rng.integers(-127, 128, shape).astype(np.int8)
    c = 2 ** token_bits(spec.wgt) - 1
    return (2 * rng.integers(0, c + 1, shape) - c).astype(np.int8)


def without_padding(spec: KernelSpec, raw: np.ndarray, taps: int, k: int) -> np.ndarray:
    """Raw sums less what the padding of k adds, as the header states it: c_w c_a per element for z kernels, else 0."""
    if spec.act[0] != "z" or spec.wgt == "s8":
        return raw.astype(np.int64)
    padded = taps * (-k % spec.k_group)
    return raw.astype(np.int64) - padded * (2 ** token_bits(spec.act) - 1) * (2 ** token_bits(spec.wgt) - 1)


def assert_raw_sums(
    spec: KernelSpec, raw: np.ndarray, codes: np.ndarray, weights: np.ndarray, gather: np.ndarray
) -> None:
    """The contract: exact integers, or fp32 within the bound of a sum in any order."""
    _, taps, k = weights.shape
    if spec.act == "f32":
        wide = sum(codes[gather[t]].astype(np.float64) @ weights[:, t].astype(np.float64).T for t in range(taps))
        size = sum(
            np.abs(codes[gather[t]]).astype(np.float64) @ np.abs(weights[:, t]).astype(np.float64).T
            for t in range(taps)
        )
        # A sum of n products in fp32, in any order: |error| <= gamma_n * sum |products|, gamma_n = n u / (1 - n u).
        n_u = (taps * k + 1) * 2.0**-24
        assert np.all(np.abs(raw - wide) <= n_u / (1 - n_u) * size)
        return
    np.testing.assert_array_equal(
        without_padding(spec, raw, taps, k), reference.raw_gather_gemm(spec.act, codes, weights, gather)
    )


def check(kernel: Kernel, codes: np.ndarray, weights: np.ndarray, gather: np.ndarray) -> None:
    cols, taps, k = weights.shape
    raw = kernel.run(kernel.pack_a(codes), kernel.pack_w(weights), cols=cols, taps=taps, k=k, gather=gather)
    assert_raw_sums(kernel.spec, raw, codes, weights, gather)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.symbol)
class TestEveryKernel:
    def test_row_and_column_tails(self, spec: KernelSpec) -> None:
        kernel, rng = loaded(spec), np.random.default_rng(1)
        nr, group = spec.tile[1], spec.k_group
        for rows in range(1, 14):
            cols, k = 1 + (rows * 7) % (2 * nr + 1), 1 + (rows * 29) % (2 * group + 1)
            codes, weights = codes_of(spec, (rows, k), rng), weights_of(spec, (cols, 1, k), rng)
            check(kernel, codes, weights, np.arange(rows)[None])

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_random_shapes(self, spec: KernelSpec, data: Any) -> None:
        kernel = loaded(spec)
        rows, cols = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 70))
        taps, k = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 200))
        pixels = data.draw(st.integers(1, 20))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        gather = rng.integers(0, pixels, (taps, rows))
        check(kernel, codes_of(spec, (pixels, k), rng), weights_of(spec, (cols, taps, k), rng), gather)

    def test_rows_that_slide_over_pixels(self, spec: KernelSpec) -> None:
        """Convolutions of stride 1: a tap of a row is the next row's tap before. One row breaks it."""
        kernel, rng = loaded(spec), np.random.default_rng(7)
        rows, k = 3 * spec.tile[0], min(5 * spec.k_group + 1, 200)
        gather = (np.arange(6) // 3 * 40 + np.arange(6) % 3)[:, None] + np.arange(rows)
        codes, weights = codes_of(spec, (gather.max() + 1, k), rng), weights_of(spec, (spec.tile[1] + 1, 6, k), rng)
        check(kernel, codes, weights, gather)
        gather[4, rows // 2] = 0
        check(kernel, codes, weights, gather)

    def test_more_rows_and_k_than_one_block_holds(self, spec: KernelSpec) -> None:
        kernel, rng = loaded(spec), np.random.default_rng(6)
        rows, cols, k = 37, 3, min(4001, spec.k_max // 2 // spec.k_group * spec.k_group)
        gather = rng.integers(0, rows, (2, rows))
        check(kernel, codes_of(spec, (rows, k), rng), weights_of(spec, (cols, 2, k), rng), gather)

    @pytest.mark.parametrize("high_code", [False, True])
    @pytest.mark.parametrize("high_weight", [False, True])
    def test_extreme_codes_at_the_deepest_feasible_k(
        self, spec: KernelSpec, high_code: bool, high_weight: bool
    ) -> None:
        kernel = loaded(spec)
        k = spec.k_max if spec.k_max <= FEASIBLE_K else 4 * spec.k_group + 3
        top = 127 if spec.wgt == "s8" else 2 ** token_bits(spec.wgt) - 1
        code = 2 ** min(token_bits(spec.act), 8) - 1 if high_code else 0
        codes = np.full((3, k), code, kernel.activation_dtype)
        weights = np.full((2, 1, k), top if high_weight else -top, np.int8)
        check(kernel, codes, weights, np.arange(3)[None])

    def test_past_the_bound_is_refused(self, spec: KernelSpec) -> None:
        kernel = loaded(spec)
        with pytest.raises(UserError, match=f"expected 1..{spec.k_max}"):
            kernel.check_depth(1, spec.k_max + 1)
        kernel.check_depth(1, spec.k_max)

    def test_wrong_buffers_are_refused(self, spec: KernelSpec) -> None:
        kernel, rng = loaded(spec), np.random.default_rng(2)
        k = spec.k_group + 1
        a, w = kernel.pack_a(codes_of(spec, (4, k), rng)), kernel.pack_w(weights_of(spec, (5, 1, k), rng))
        crooked_a = aligned_empty((a.size + 1,))[1:].reshape(a.shape)
        crooked_w = aligned_empty((w.size + 1,))[1:]
        shape = {"cols": 5, "taps": 1, "k": k}
        bad: list[tuple[Any, Any, dict[str, Any]]] = [
            (a.astype(np.int16), w, shape),
            (a[:, :-64] if a.shape[1] > 64 else a[:0], w, shape),
            (a[::2], w, shape),
            (crooked_a, w, shape),
            (a, w[:-1], shape),
            (a, crooked_w, shape),
            (a, w, shape | {"cols": 0}),
            (a, w, shape | {"taps": 0}),
            (a, w, shape | {"gather": np.array([[0, 4]])}),
            (a, w, shape | {"gather": np.array([[-1]])}),
            (a, w, shape | {"gather": np.zeros((2, 1), np.int64)}),
            (a, w, shape | {"gather": np.zeros((1, 1), np.int32)}),
            (list(a), w, shape),
        ]
        for wrong_a, wrong_w, arguments in bad:
            with pytest.raises(UserError, match=r"expected"):
                kernel.run(wrong_a, wrong_w, **arguments)

    def test_wrong_operands_are_refused(self, spec: KernelSpec) -> None:
        kernel, rng = loaded(spec), np.random.default_rng(3)
        codes, weights = codes_of(spec, (3, 9), rng), weights_of(spec, (2, 1, 9), rng)
        for wrong in (codes.astype(np.float64), codes[0], codes[:, ::2], codes[:, :0]):
            with pytest.raises(UserError, match="activations"):
                kernel.pack_a(wrong)
        for wrong in (weights.astype(np.int16), weights[0], np.full_like(weights, -128)):
            with pytest.raises(UserError, match="weights"):
                kernel.pack_w(wrong)
        if spec.wgt != "s8":
            with pytest.raises(UserError, match="odd"):
                kernel.pack_w(np.zeros_like(weights))
        if spec.act != "f32" and token_bits(spec.act) < 8:
            with pytest.raises(UserError, match="codes: expected below"):
                kernel.pack_a(np.full_like(codes, 2 ** token_bits(spec.act)))

    def test_bound_of_its_accumulator_holds(self, spec: KernelSpec) -> None:
        if spec.acc == "f32":
            pytest.skip("fp32 accumulators do not overflow")
        largest = (127 if spec.wgt == "s8" else 2 ** token_bits(spec.wgt) - 1) * (2 ** token_bits(spec.act) - 1)
        assert spec.k_max * largest <= 2**31 - 1


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if spec.algorithm in MASKED_ENDS], ids=lambda spec: spec.symbol
)
@pytest.mark.parametrize("k", [1, 16, 48, 100])
def test_masked_ends_take_any_codes_behind_k(spec: KernelSpec, k: int) -> None:
    kernel, rng = loaded(spec), np.random.default_rng(k)
    codes = codes_of(spec, (13, round_up(k, spec.k_group)), rng)
    weights, gather = weights_of(spec, (3, 2, k), rng), rng.integers(0, 13, (2, 13))
    raw = kernel.run(kernel.pack_a(codes), kernel.pack_w(weights), cols=3, taps=2, k=k, gather=gather)
    assert_raw_sums(spec, raw, np.ascontiguousarray(codes[:, :k]), weights, gather)


def test_reference_equals_big_integers() -> None:
    rng = np.random.default_rng(4)
    codes, weights = rng.integers(0, 4, (3, 7)), rng.integers(-7, 8, (2, 7)).astype(np.int8)
    for act, multiplier, offset in (("u2", 1, 0), ("z2", 2, 3)):
        expected = [
            [sum(int(weights[n, i]) * (multiplier * int(codes[r, i]) - offset) for i in range(7)) for n in range(2)]
            for r in range(3)
        ]
        assert reference.raw_gemm(act, codes, weights).tolist() == expected


def test_a_new_file_is_a_new_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "cpu"
    shutil.copytree(CPU_FOLDER, folder)
    text = (folder / "gemm_direct.cpp").read_text().split("SONIQ_KERNEL(")[0]
    symbol = "gemm_u3_z1_s32_1x1x8__scalar_dropped"
    text = text.replace("ActBits, int WgtBits>\nstruct Direct", "ActBits, int WgtBits>\nstruct Dropped")
    (folder / "gemm_dropped.cpp").write_text(text + f'SONIQ_KERNEL({symbol}, "", 8, 1000, Dropped<4, 1>)\n')
    (spec,) = [found for found in catalog(folder) if found.symbol == symbol]
    kernel, rng = load_kernel(spec, folder), np.random.default_rng(5)
    check(kernel, codes_of(spec, (3, 11), rng), weights_of(spec, (4, 2, 11), rng), np.array([[0, 1], [2, 2]]))


def test_a_library_holds_the_kernel_asked_for_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SONIQ_DSE_CACHE", str(tmp_path))
    first, second = [spec for spec in SPECS if not spec.features][:2]
    assert first.path == second.path
    build_kernels([first, second, first])
    assert len(list(tmp_path.rglob("*.so"))) == 2
    exported = ctypes.CDLL(str(build_kernel_library(first)))
    assert hasattr(exported, first.symbol)
    assert not hasattr(exported, second.symbol)
