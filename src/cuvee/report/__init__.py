"""Room: report. One HTML page of a study or of one measured corpus, the cards of a blend and of a model."""

from cuvee.report.card import (
    CardFacts,
    Licences,
    Reproduction,
    SyntheticPart,
    is_language,
    render_card,
    render_model_card,
)
from cuvee.report.data import ReportData
from cuvee.report.measured_page import render_measurement
from cuvee.report.page import render_report

__all__ = [
    "CardFacts",
    "Licences",
    "ReportData",
    "Reproduction",
    "SyntheticPart",
    "is_language",
    "render_card",
    "render_measurement",
    "render_model_card",
    "render_report",
]
