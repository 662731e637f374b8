"""What the page says of real rows, of other choices and of luck, from trials that are made up."""

import dataclasses
import re

import pytest
from test_report_page import HOSTILE, LEVELS, Reader, make_data, make_trials

from cuvee.cli.console import out
from cuvee.cli.show import list_advice
from cuvee.recommend import ComparedCells, compare_advice, recommend_mixture, summarise_rows
from cuvee.recommend.wording import write_rows
from cuvee.records.advice import TwoLines
from cuvee.report.charts import COLOURS
from cuvee.report.study_page import render_report
from cuvee.report.tables import list_asides, list_leaders, write_two_lines

pytestmark = pytest.mark.slow  # each is quick, together they are not


def read(page) -> str:
    return " ".join(" ".join(Reader(page).words).split())


def rows_of(page, section) -> list[str]:
    """The words of each row of a section's first table."""
    body = page[page.index(f'id="{section}"') :].split("<tbody>")[1].split("</tbody>")[0]
    return [read(row) for row in body.split("</tr>")[:-1]]


@pytest.fixture(scope="module")
def data():
    """The study of the page with two rows a label besides four, and three other choices."""
    many = make_trials()
    few = [dataclasses.replace(t, cell=dataclasses.replace(t.cell, rows_per_label=2)) for t in many]
    made = make_data()
    options = {
        "level_ranks": {dial: list(gains) for dial, gains in LEVELS.items()},
        "measurements": made.measurements,
    }
    base = recommend_mixture([*many, *few], **options)
    other = dataclasses.replace(base, decision="do-not-use")
    lines = TwoLines(shape="inverted-U", break_at=25.0, low_slope=0.01, low_p=0.02, high_slope=-0.02, high_p=0.0001)
    shapes = (dataclasses.replace(base.shapes[0], two_lines=lines), *base.shapes[1:])
    rows = {n: recommend_mixture([*many, *few], compared=ComparedCells(rows_per_label=n), **options) for n in (2, 4)}
    advice = dataclasses.replace(
        base,
        shapes=shapes,
        confirmation=made.advice.confirmation,
        sensitivity=compare_advice(base, {"metric distinct_2": base, "equal epochs": other, HOSTILE: base}),
        by_rows=summarise_rows(rows),
    )
    return dataclasses.replace(made, advice=advice)


@pytest.fixture(scope="module")
def page(data):
    return render_report(data)


def test_two_lines_and_flips_stand_next_to_the_verdict(data, page):
    asides = dict(list_asides(data))
    assert (
        "shown inverted-U, +1.0 points a unit of diversity below 25.0 (p = 0.020)"
        in (asides["Two lines over measured diversity"])
    )
    assert "above it (p < 0.001)" in asides["Two lines over measured diversity"]
    assert "the conclusion flips under equal epochs (decision); tried: " in asides["Other choices"]
    words = read(page)
    assert words.index("Two lines over measured diversity") < words.index("How much")
    assert write_two_lines(data.advice.shapes[0]) in words
    robust = dataclasses.replace(data.advice, sensitivity=compare_advice(data.advice, {"loss dimp": data.advice}))
    assert dict(list_asides(dataclasses.replace(data, advice=robust)))["Other choices"] == (
        "On validation no other choice flips the conclusion; tried: loss dimp."
    )


def test_a_shape_that_is_not_interpreted_stands_nowhere_as_a_finding(data):
    shapes = tuple(dataclasses.replace(shape, interpreted=False) for shape in data.advice.shapes)
    made = dataclasses.replace(data, advice=dataclasses.replace(data.advice, shapes=shapes))
    words = read(render_report(made))
    assert "Two lines over measured diversity" not in words and write_two_lines(shapes[0]) not in words
    table = words[words.index("Shape of accuracy over levels") :]
    assert table.index("not interpreted") < table.index("Against the baselines")


def test_rows_of_tasks_without_labels_are_counted_as_rows(data):
    advice = dataclasses.replace(data.advice, score="ndcg@10")
    parts = dataclasses.replace(data.composition, label_counts={})
    words = read(render_report(dataclasses.replace(data, advice=advice, composition=parts)))
    assert f"real synthetic rows {parts.real_rows} {parts.synthetic_rows}" in words
    assert "The advice by real rows luck" not in words and "The advice by real rows" in words
    assert "a label" not in words and "label agreement, since" not in words
    assert "The advice by real rows a label" in read(render_report(data))
    assert write_rows(advice.by_rows[0], "ndcg@10").startswith("4 real rows: ")


def test_the_terminal_names_the_score_and_what_cells_differ_in(data, capsys):
    out.print(*list_advice(dataclasses.replace(data.advice, score="ndcg@10")), sep="\n")
    head, *_ = [line for line in capsys.readouterr().out.splitlines() if "over repeated" in line]
    assert "nDCG@10" in head and "acc." not in head and " rows " in head.replace("real rows", "") and "loss" not in head
    one = dataclasses.replace(data.advice, cells=tuple(s for s in data.advice.cells if s.cell.rows_per_label == 4))
    out.print(*list_advice(one), sep="\n")
    head, *_ = [line for line in capsys.readouterr().out.splitlines() if "over repeated" in line]
    assert "acc." in head and " rows " not in head.replace("real rows", "")


def test_the_page_shows_how_the_advice_depends_on_real_rows(page):
    reader = Reader(page)
    assert not reader.broken and not reader.open and page.count("<script") == 1
    rows = rows_of(page, "scarce")
    assert [row.split()[0] for row in rows] == ["2", "4"] and all(
        len(re.findall(r"\+\d+\.\d to", row)) == 2 for row in rows
    )
    assert read(page).count("expected, shrunk for the choice") == 1 and "another number of real rows" not in read(page)
    used = {part.split('"')[0] for part in page[page.index("</style>") : page.index("<script>")].split('stroke="')[1:]}
    assert {colour for colour in used if colour.startswith("#")} <= set(COLOURS)


def test_the_page_flags_what_flips(page):
    rows = rows_of(page, "other")
    names = ["this study, on validation", "metric distinct_2", "equal epochs", HOSTILE]
    assert [row.startswith(name) for row, name in zip(rows, names, strict=True)] == [True] * 4
    assert ["flips decision" in row for row in rows] == [False, False, True, False]
    words = read(page)
    assert "flips decision" in words and words.count("no flip") == 2


def test_tables_compare_cells_of_the_same_number_of_real_rows(data):
    leaders = list_leaders(data)
    assert leaders and {summary.cell.rows_per_label for summary, _ in leaders} == {4}


def test_a_study_without_them_has_no_such_sections():
    words = read(render_report(make_data()))
    assert "How many real rows" not in words and "Would other choices" not in words
    assert "another number of real rows" in words
