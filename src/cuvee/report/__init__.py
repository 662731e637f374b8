"""Room: report. One HTML page of a study, a measured corpus or a collapse, and the cards of a blend and of a model."""

from cuvee.records import CollapseResult, MeasurementPage
from cuvee.report.card import (
    CardFacts,
    Licences,
    Reproduction,
    SyntheticPart,
    is_language,
    render_card,
    render_model_card,
)
from cuvee.report.tables import ReportData


def render_report(data: ReportData) -> str:
    """See :func:`cuvee.report.study_page.render_report`, loaded when it is called: charts take long to load."""
    from cuvee.report import study_page

    return study_page.render_report(data)


def render_measurement(page: MeasurementPage) -> str:
    """See :func:`cuvee.report.corpus_page.render_measurement`, which is loaded when it is called."""
    from cuvee.report import corpus_page

    return corpus_page.render_measurement(page)


def render_collapse(page: CollapseResult) -> str:
    """See :func:`cuvee.report.collapse_page.render_collapse`, which is loaded when it is called."""
    from cuvee.report import collapse_page

    return collapse_page.render_collapse(page)
