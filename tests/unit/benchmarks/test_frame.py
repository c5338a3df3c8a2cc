"""The convention of the benchmarks: medians of passes, one kept result per processor, a page of all of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3]))  # benchmarks are not installed
frame = pytest.importorskip("benchmarks._frame")
original = frame.kept_documents


def document(processor: str, value: float | None, date: str = "2026-01-02", **goal: Any) -> dict[str, Any]:
    told = frame.Goal("G1", "a goal", "x", value, at_least=2, measured="now", **goal).to_json_value()
    host = {"processor": processor, "family": 25, "model": 1}
    return {"date": date, "host": host, "passes": 3, "goals": [told], "rows": [{"a": 1.5}], "notes": []}


@pytest.mark.parametrize(
    ("processor", "slug"),
    [
        ("AMD EPYC", "amd-epyc-25-1"),
        ("Intel(R) Xeon(R) Processor", "intel-xeon-25-1"),
        ("Intel(R) Core(TM) i7-6700 CPU @ 3.40GHz", "intel-core-i7-6700-25-1"),
    ],
)
def test_a_processor_has_one_file(processor: str, slug: str) -> None:
    assert frame.processor_slug({"processor": processor, "family": 25, "model": 1}) == slug


def test_passes_give_medians_and_spreads() -> None:
    goal = frame.Goal("G1", "a goal", "x", at_least=2)
    passes = [
        frame.Result([replace(goal, value=value)], [{"name": "row", "s": value, "best": best}])
        for value, best in ((3.0, "b"), (1.0, "a"), (2.0, "a"))
    ]
    whole = frame.combined(passes)
    assert (whole.goals[0].value, whole.goals[0].spread) == (2.0, (1.0, 3.0))
    assert whole.rows == [{"name": "row", "s": 2.0, "best": "a"}]
    assert frame.combined(passes[:1]) is passes[0]
    nothing = frame.combined([frame.Result([goal], [])] * 2)
    assert nothing.goals[0].value is None


def test_what_a_run_does_not_measure_comes_from_this_processor_first() -> None:
    kept = [document("Other", 9.0, "2026-02-02"), document("AMD EPYC", 3.0)]
    goal = frame.Goal("G1", "a goal", "x", at_least=2)
    here = frame.with_kept(goal, kept, "amd-epyc-25-1")
    assert (here.value, here.measured, here.met) == (3.0, "2026-01-02 on AMD EPYC", True)
    assert frame.with_kept(goal, kept, "third-25-1").value == 9.0
    assert frame.with_kept(replace(goal, value=1.0), kept, "amd-epyc-25-1").measured == "now"
    unknown = frame.with_kept(replace(goal, id="G2"), kept, "amd-epyc-25-1")
    assert (unknown.value, unknown.measured, unknown.met) == (None, None, False)


def test_the_page_sets_processors_side_by_side() -> None:
    documents = [document("AMD EPYC", 1.0), document("Xeon", 3.0, spread=(2.5, 3.5))]
    text = frame.page("name", "Title", documents)
    assert "| G1 | a goal | x | >= 2 | 1 | 3 (2.5 to 3.5) | yes |" in text
    assert text.index("## AMD EPYC") < text.index("## Xeon")
    assert frame.page("name", "Title", [document("AMD EPYC", None)]).count("| not measured | no |") == 1


@pytest.mark.parametrize("name", sorted(path.name for path in frame.KEPT.iterdir()))
def test_kept_results_lie_under_their_processor(name: str) -> None:
    documents = {path.stem: frame.json.loads(path.read_text()) for path in (frame.KEPT / name).glob("*.json")}
    assert documents
    assert all(stem == frame.processor_slug(one["host"]) for stem, one in documents.items())


def test_a_full_run_keeps_each_pass_and_a_quick_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frame, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(frame, "PAGES", tmp_path / "pages")
    monkeypatch.setattr(frame, "kept_documents", lambda name: original(name, tmp_path / "kept"))
    values = iter([5.0, 1.0, 9.0])

    def measure(quick: bool) -> Any:
        return frame.Result([frame.Goal("G1", "a goal", "x", None if quick else next(values), at_least=2)], [])

    def run(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["name", "--json", *arguments])
        frame.main("name", "Title", measure, passes=2)
        return frame.json.loads(capsys.readouterr().out)

    assert run("--quick")["goals"][0]["measured"] is None
    assert not list(tmp_path.rglob("*.json"))
    assert run()["goals"][0]["value"] == 3.0
    (kept,) = original("name", tmp_path / "kept")
    assert (kept["passes"], kept["goals"][0]["spread"]) == (2, [1.0, 5.0])
    quick = run("--quick")["goals"][0]
    assert (quick["value"], quick["measured"].partition(" on ")[1]) == (3.0, " on ")
    with pytest.raises(StopIteration):  # in the second pass
        run()
    (kept,) = original("name", tmp_path / "kept")
    assert (kept["passes"], kept["goals"][0]["value"]) == (1, 9.0)
