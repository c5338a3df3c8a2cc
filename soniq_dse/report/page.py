"""The HTML page. Nothing in it reaches out: its content security policy admits the page's own two scripts, by their
hashes, and no connection at all.

Data and plotly.js travel as the base64 of their gzip: a report of 2,000 designs stays small, and no string of it can
end the script element that it sits in.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import itertools
import json
from importlib.resources import files

import jinja2
from markupsafe import Markup

from soniq_dse import registry
from soniq_dse.records.cost import BOUND_WORDS
from soniq_dse.records.front import Report
from soniq_dse.report.marks import marks_of
from soniq_dse.report.panels import Base
from soniq_dse.report.reading import date_text


def render_page(report: Report) -> str:
    """The whole page; ``report.summary`` is set."""
    panels = all_panels()
    return offline_page(
        "template.html",
        script="\n".join(
            [
                package_text("page.js"),
                package_text("figure.js"),
                *(panel.script() for panel in panels),
                "soniq.start();",
            ]
        ),
        data=_data_json(report, panels),
        report=report,
        created=date_text(report.created),
        panels=[(panel, panel.fragment(report)) for panel in panels],
    )


def offline_page(template: str, *, script: str, data: str, **values: object) -> str:
    """A page of ``template`` that holds ``script``, its ``data`` (JSON) and plotly.js, and asks for nothing else."""
    plotly = _plotly_js()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(package_text(template)).render(
        hashes=[_csp_hash(script), _csp_hash(plotly)],
        style=Markup(package_text("style.css")),
        plotly=_packed(plotly),
        plotly_license=plotly[: plotly.index("*/")].strip("/* \n"),
        script=Markup(script),
        data=_packed(data),
        **values,
    )


def all_panels() -> list[Base]:
    """Every panel that the registry finds, in page order."""
    panels = [registry.load("panel", name)() for name in registry.names("panel")]
    return sorted(panels, key=lambda panel: (panel.order, panel.id))


def page_data(report: Report, panels: list[Base]) -> dict[str, object]:
    """The part of ``report.json`` that ``panels`` read, under the same keys."""
    fields = {"front", "summary", "workload", "hardware", "others"}.union(*(panel.fields for panel in panels))
    return report.model_dump(mode="json", include=fields)


def _data_json(report: Report, panels: list[Base]) -> str:
    points = itertools.chain(report.front.points, *(other.points for other in report.others))
    marks = {name: mark._asdict() for name, mark in marks_of(points).items()}
    data = {"report": page_data(report, panels), "marks": marks, "bounds": BOUND_WORDS}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@functools.lru_cache(maxsize=2)
def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def package_text(name: str) -> str:
    """A file of this package."""
    return files("soniq_dse.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly_js() -> str:
    return files("plotly").joinpath("package_data").joinpath("plotly.min.js").read_text(encoding="utf-8")
