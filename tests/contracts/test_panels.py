"""What every panel of the report keeps to; the registry finds the panels."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from report_factory import toy_report

from soniq_dse import registry
from soniq_dse.records.front import Report
from soniq_dse.report.page import all_panels
from soniq_dse.report.panels import Base
from soniq_dse.report.summary import summarise

HOSTILE = "<script>alert(1)</script>"
VOID = {"input", "br", "hr", "img", "meta", "link"}

REPORTS = {
    "full": toy_report(),
    "hostile": toy_report(title=HOSTILE, names={0: HOSTILE}),
    "unmeasured": toy_report(measured=False),
    "empty": toy_report(0, references=False),
}


class Outline(HTMLParser):
    """Ids of a fragment, its scripts, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")], "no inline handlers: the policy blocks them"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def panel(name: str) -> Base:
    return registry.load("panel", name)()


def with_summary(report: Report) -> Report:
    hostile = report.model_copy(update={"command": report.title, "notes": (report.title,)})
    return hostile.model_copy(update={"summary": summarise(report)})


@pytest.fixture(params=registry.names("panel"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_says_what_it_is(name: str) -> None:
    found = panel(name)
    assert found.id == name
    assert found.title
    assert found.help.endswith(".")
    assert isinstance(found.order, int)


def test_it_reads_fields_of_the_report_alone(name: str) -> None:
    assert set(panel(name).fields) <= set(Report.model_fields)


@pytest.mark.parametrize("which", REPORTS)
def test_its_fragment_is_whole_and_escaped(name: str, which: str) -> None:
    fragment = panel(name).fragment(with_summary(REPORTS[which]))
    outline = Outline(fragment)
    assert not outline.open
    assert "script" not in outline.tags
    assert len(set(outline.ids)) == len(outline.ids)


def test_its_script_is_registered_and_sets_no_html(name: str) -> None:
    script = panel(name).script()
    if script:
        assert f'soniq.panel("{name}"' in script
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttpRequest",
    ):
        assert forbidden not in script
    assert not re.search(r"</script|<!--|https?://(?!www\.w3\.org/2000/svg)", script, re.IGNORECASE)


def test_no_two_panels_share_an_id() -> None:
    report = with_summary(REPORTS["full"])
    ids = [found for unit in all_panels() for found in Outline(unit.fragment(report)).ids]
    assert len(set(ids)) == len(ids)
