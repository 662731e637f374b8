"""Charts for notebooks, and what values show of themselves there, from a real advice on made-up trials."""

import dataclasses

import pytest
import vl_convert
from test_report_page import HOSTILE, LEVELS, make_data

import cuvee
from cuvee.report import study_page


def marks(chart, name):
    """The rows of data that have a field."""
    return [row for table in chart.to_dict()["datasets"].values() for row in table if name in row]


@pytest.fixture(scope="module")
def data():
    return make_data()


def test_the_amount_curve_holds_every_blend_and_the_real_rows(data):
    advice = data.advice
    chart = cuvee.plot_advice(advice)
    blends = [cell for cell in advice.cells if cell.cell.kind == "blend"]
    assert {(row["level"], round(row["score"], 6)) for row in marks(chart, "level")} == {
        (cell.cell.level, round(100 * cell.accuracy, 6)) for cell in blends
    }
    assert {row["real"] for row in marks(chart, "real")} == {100 * study_page.gather_grid(data).real_only}
    assert [row["score"] for row in marks(chart, "words")] == [100 * advice.best.accuracy]
    assert [view["title"] for view in chart.to_dict()["vconcat"]] == [f"Accuracy by amount: {dial}" for dial in LEVELS]
    assert vl_convert.vegalite_to_svg(chart.to_json()).startswith("<svg")
    with pytest.raises(ValueError, match="no blend to plot"):
        cuvee.plot_advice(dataclasses.replace(advice, cells=()))


def test_diversity_against_shift_has_a_point_for_each_corpus_that_has_both(data):
    chart = cuvee.plot_measurements(data.measurements)
    assert {row["level"]: row["diversity"] for row in marks(chart, "level")} == {
        name: m.values["vendi_q1"].value for name, m in data.measurements.items()
    }
    with pytest.raises(ValueError, match="no corpus has both 'vendi_q1' and 'mmd'"):
        cuvee.plot_measurements({name: dataclasses.replace(m, values={}) for name, m in data.measurements.items()})


def test_an_advice_shows_itself_as_a_table_with_the_text_of_others_escaped(data):
    page, lines = data.advice._repr_html_(), repr(data.advice).splitlines()
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert page.count("<tr>") == 1 + 8 + 1 and "<th>over real rows</th>" in page  # heads, the best, the real rows
    assert lines[1].split()[:2] == ["cell", "share"] and "acc." in lines[1] and repr(data.advice) == str(data.advice)
