"""Room: report. One HTML page of a study or of one measured corpus, and the cards of a blend and of a model."""

from cuvee.records import MeasurementPage
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
