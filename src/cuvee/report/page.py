"""The engine of all pages: templates, their style sheet, and the dark theme of the charts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from cuvee.characters import visible, visible_lines
from cuvee.records import MeasurementPage
from cuvee.report.charts import write_dark_theme
from cuvee.report.data import ReportData


def render_page(template: str, page: ReportData | MeasurementPage, parts: Mapping[str, Callable[..., object]]) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched and nothing runs.

    Args:
        template: its file.
        page: what the page shows.
        parts: functions that the template calls: of tables, charts and words.
    """
    return _open_templates().get_template(template, globals=dict(parts)).render(page=page)


@cache
def _open_templates() -> jinja2.Environment:
    """The pages' templates; what is written into one is escaped, control characters too."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cuvee", "report"),
        autoescape=True,
        finalize=lambda value: visible_lines(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.globals["style_sheet"] = _style_sheet
    return environment


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after each of its underscores and slashes."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", visible(name)))


@cache
def _style_sheet() -> str:
    """The style sheet, with the charts' colours mapped to the dark theme."""
    css = resources.files("cuvee.report").joinpath("page.css").read_text("utf-8")
    return f"{css}\n{write_dark_theme()}"
