"""Lost trials and lost choices on the page and the terminal, and what a shape does not say."""

import dataclasses

import pytest
from test_report_page import Reader, make_data

from cuvee.cli.console import out
from cuvee.cli.show import list_advice, list_failed
from cuvee.recommend import advice_to_json, compare_advice
from cuvee.records import count_failed
from cuvee.records.advice import LostVariant
from cuvee.report.study_page import render_report
from cuvee.report.tables import list_asides

pytestmark = pytest.mark.slow  # each is quick, together they are not


@pytest.fixture(scope="module")
def data():
    """The study of the page, with one other choice that was tried and one that was lost."""
    made = make_data()
    failed = count_failed(made.failures, trials=40)
    assert failed is not None
    table = compare_advice(made.advice, {"metric distinct_2": made.advice})
    lost = LostVariant(variant="trainer mine:bug (check)", failed=failed)
    advice = dataclasses.replace(made.advice, sensitivity=dataclasses.replace(table, lost=(lost,)))
    return dataclasses.replace(made, advice=advice, failed=failed)


def test_the_page_counts_failures_beside_the_verdict_and_has_a_row_for_a_lost_choice(data):
    asides = dict(list_asides(data))
    assert asides["Failed trials"].startswith("1 of 40 trials failed: ")
    assert asides["Other choices"].endswith("could not be run: trainer mine:bug (check).")
    page = render_report(data)
    words = " ".join(" ".join(Reader(page).words).split())
    assert words.index("1 of 40 trials failed") < words.index("How much")
    assert f"trainer mine:bug (check) could not be run {data.failed}" in words
    assert 'id="failures"' in page and "A choice that could not be run has no conclusion." in words
    plain = render_report(dataclasses.replace(data, failures=(), failed=None))
    assert 'id="failures"' not in plain and "Failed trials" not in " ".join(Reader(plain).words)


def test_a_lost_choice_is_in_the_json_and_the_text(data):
    [found] = advice_to_json(data.advice)["sensitivity"]["lost"]
    assert (found["variant"], found["failed"]["trials"]) == ("trainer mine:bug (check)", 40)
    assert "trainer mine:bug (check): could not be run: 1 of 40 trials failed" in str(data.advice.sensitivity.lost[0])


def test_a_shape_is_said_to_be_another_question_than_the_gain(data, capsys, tmp_path):
    words = " ".join(" ".join(Reader(render_report(data)).words).split())
    assert "the verdict above says whether the best blend beats the real rows" in words
    out.print(*list_advice(data.advice), *list_failed(data.failed, tmp_path), sep="\n")
    shown = " ".join(capsys.readouterr().out.split())
    assert "(A shape compares levels with each other. Whether the best blend beats the real rows is another" in shown
    assert "trainer mine:bug (check): could not be run: 1 of 40 trials failed" in shown
    assert shown.index("Verdict:") < shown.rindex("1 of 40 trials failed") and "report.html" not in shown
    out.print(*list_advice(dataclasses.replace(data.advice, shapes=())), sep="\n")
    assert "A shape compares" not in capsys.readouterr().out
