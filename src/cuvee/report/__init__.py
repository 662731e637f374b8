"""Room: report. One HTML page of a study, and the dataset card of its blend."""

from cuvee.report.card import render_card
from cuvee.report.data import ReportData
from cuvee.report.page import render_report

__all__ = ["ReportData", "render_card", "render_report"]
