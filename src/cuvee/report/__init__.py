"""Room: report. One HTML page of a study, a measured corpus or a collapse, and the cards of a blend and of a model.

The pages are modules of their own, imported where they are rendered: charts take long to load.
"""

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
