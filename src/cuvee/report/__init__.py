"""Room: report. One HTML page of a study or of one measured corpus, and the dataset card of a blend."""

from cuvee.report.card import Licences, Reproduction, SyntheticPart, render_card
from cuvee.report.data import ReportData
from cuvee.report.measured_page import render_measurement
from cuvee.report.page import render_report

__all__ = [
    "Licences",
    "ReportData",
    "Reproduction",
    "SyntheticPart",
    "render_card",
    "render_measurement",
    "render_report",
]
