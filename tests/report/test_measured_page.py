"""The page of one measured corpus, from made-up numbers and hostile texts."""

import dataclasses
import re

import numpy as np
import pytest
from test_report_page import HOSTILE, Reader, check_fetches_nothing

from cuvee.records.measurement import (
    DatasetMap,
    Estimate,
    Finding,
    Measurement,
    MeasurementPage,
    MetricNote,
    Profile,
    SampleRow,
)
from cuvee.report.charts import COLOURS, DARK, pick_ticks
from cuvee.report.corpus_page import (
    draw_map_panels,
    list_provenance,
    render_measurement,
)
from cuvee.report.tables import write_uncertainty

NAN = float("nan")
LABELS = ("card_arrival", HOSTILE, "refund")


class PageReader(Reader):
    VOID = (*Reader.VOID, "wbr")


def estimate(value, spread=0.1, n=40, **changes):
    content = {"value": value, "low": value - spread, "high": value + spread, "n": n, "interval": "grouped jackknife"}
    return Estimate(**(content | changes))


def make_measurement(name="corpus", **changes):
    values = {
        "vendi_q1": estimate(12.34, 1.5, settings={"q": 1.0, "kernel": "cosine"}),
        "dcscore_tau0.1": estimate(31.7, 2.0, settings={"tau": 0.1}),
        "near_duplicate_rate": estimate(0.0312, 0.01),
        "distinct_2": estimate(0.71, 0.02),
        "mmd": Estimate(value=0.0412, n=40, p_value=0.0004),
        "label_agreement": estimate(0.875, 0.05),
        "leakage": estimate(0.025, 0.02),
        "strange_metric": Estimate(value=NAN, n=40),
    }
    findings = (
        Finding(id="repeats", sentence=f"9 of 40 rows repeat {HOSTILE}.", remedy="Keep one.", severity=0.2),
        Finding(id="fine", sentence="Fine: no label is narrow."),
    )
    content = {
        "name": name, "fingerprint": "f" * 64, "against": "a" * 64, "n": 40, "encoder": "minilm",
        "encoder_hash": "e" * 64, "seed": 7, "values": values, "findings": findings,
    }  # fmt: skip
    return Measurement(**(content | changes))


def make_map(points=36, labels=LABELS, origins=("real", "synthetic")):
    angle = np.linspace(0.0, 6.0, points)
    return DatasetMap(
        x=np.cos(angle),
        y=np.sin(angle),
        origin=tuple(origins[i % len(origins)] for i in range(points)),
        group=tuple(labels[i % len(labels)] for i in range(points)),
        text=tuple(f"point {i} url(#x) {HOSTILE}" for i in range(points)),
        explained=0.1234,
        rows=1000,
        seed=7,
    )


def make_page(**changes):
    note = MetricNote(family="semantic", description=f"effective {HOSTILE}", better="higher is more diverse")
    row = SampleRow(
        id="1", text=f"a row {HOSTILE}", target=HOSTILE, uniqueness=0.02,
        nearest_text=f"its neighbour {HOSTILE}", nearest_cosine=0.987,
    )  # fmt: skip
    rows = dict(zip(LABELS, (20, 10, 10), strict=True))
    content = {
        "measurement": make_measurement(f"banking {HOSTILE}"),
        "taus": Profile(
            name="dcscore", parameter="tau", points=tuple((t, estimate(2.0 / t)) for t in (0.05, 0.1, 0.5, 1.0))
        ),
        "orders": (
            Profile(name="vendi", parameter="q", points=tuple((q, estimate(30.0 - q)) for q in (0.0, 1.0, 2.0))),
            Profile(name="dcscore", parameter="q", points=tuple((q, estimate(40.0 - q)) for q in (0.0, 1.0))),
        ),
        "by_label": {label: make_measurement(label, n=rows[label]) for label in LABELS},
        "map": make_map(),
        "redundant": (row,),
        "novel": (dataclasses.replace(row, text="a find", nearest_cosine=NAN, nearest_text=""),),
        "notes": {"vendi_q1": note, "mmd": MetricNote(family="shift", description="MMD", better="lower is closer")},
        "against_name": f"train {HOSTILE}",
        "against_rows": 60,
        "settings": {"columns": HOSTILE},
        "reproduce": f"cuvee measure {HOSTILE}",
        "version": "9.9",
    }
    return MeasurementPage(**(content | changes))


@pytest.fixture(scope="module")
def page():
    return render_measurement(make_page())


@pytest.fixture(scope="module")
def read(page):
    return PageReader(page)


def words_of(text):
    return " ".join("".join(PageReader(text).words).split())


def test_nothing_is_fetched_and_only_the_own_script_runs(page, read):
    check_fetches_nothing(page, read)
    links = {a["href"][1:] for tag, a in read.tags if tag == "a" and a["href"].startswith("#")}
    assert links == {"map", "curves", "parts", "rows", "metrics", "again"}
    assert links <= {attributes["id"] for _, attributes in read.tags if "id" in attributes}


def test_findings_open_the_page(page):
    words = words_of(page)
    assert words.index(f"9 of 40 rows repeat {HOSTILE}. Keep one.") < words.index("Encoder minilm")
    assert 'id="finding-repeats"' in page and 'id="finding-fine" class="fine"' in page


def test_hostile_text_is_shown_as_text(page, read):
    assert page.count("<script") == 1 and "<img" not in page
    words = "".join([*read.words, *(attributes.get("data-tip", "") for _, attributes in read.tags)])
    for place in (
        "a row ",
        "its neighbour ",
        "train ",
        "cuvee measure ",
        "effective ",
        "point 3 url(#x) ",
    ):
        assert place + HOSTILE in words, place


def test_the_page_says_its_numbers(page):
    words = words_of(page)
    assert "40 rows, as diverse as 12.3 rows that have nothing in common" in words
    assert f"Encoder minilm ({'e' * 12}). Measured against train" in words and "(60 rows, fingerprint aaaa" in words
    for text in ("12.3", "10.8 to 13.8", "3.1%", "2.1% to 4.1%", "p < 0.001", "87.5%", "0.041"):
        assert text in words, text
    assert "36 of 1,000 rows, drawn at random with seed 7" in words and "12.3% of their variance" in words
    assert "nearest, cosine 0.987: its neighbour" in words and "uniqueness 0.020" in words
    assert words.count("nearest, cosine") == 1
    assert "tau = 0.1, interval: grouped jackknife" in words and "higher is more diverse" in words
    for title in ("Semantic diversity", "Shift from the real rows", "Other numbers"):
        assert title in words, title
    assert "Made by Cuvée 9.9" in words


def test_every_chart_is_there_named_and_in_colours_that_the_dark_theme_knows(page, read):
    charts = [a for tag, a in read.tags if tag == "svg" and a.get("class") == "chart"]
    named = [a["aria-label"] for a in charts if "aria-label" in a]
    assert named[0] == "Map of 36 examples, coloured by origin" and named[1].endswith("coloured by label")
    assert named[2].startswith("DCScore over tau, with 95% bands: dcscore from 40 at 0.05 to 2 at 1")
    assert named[3].startswith("effective number over order q") and "DCScore from 40" in named[3]
    assert len(named) == len(charts) == 4
    inside = "".join(re.findall(r'<svg class="chart.*?</svg>', page, flags=re.S))
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]+)"', inside))
    known = COLOURS
    assert used and used <= set(known)
    assert len(known) == len(set(known)) == len(DARK)
    assert all(f'[fill="{colour}"]' in page for colour in known)


def test_each_point_of_the_map_carries_its_own_text(page):
    panels = re.findall(r'<svg class="chart" role="img" aria-label="Map of.*?</svg>', page, flags=re.S)
    assert len(panels) == 2
    for panel in panels:
        marks = [a for tag, a in Reader(panel).tags if "data-tip" in a]
        texts = [mark["data-tip"] for mark in marks]
        assert len(texts) == 36 and "aria-roledescription" not in panel
        assert sum(text.startswith("real, card_arrival: point ") for text in texts) == 6
        assert len({re.search(r"point (\d+)", text).group(1) for text in texts}) == 36
    marks = [a for tag, a in Reader(panels[0]).tags if "data-tip" in a]
    assert {("A" in a["d"], a["fill"], a["data-tip"].split(",")[0]) for a in marks} == {
        (False, COLOURS[4], "real"), (True, COLOURS[3], "synthetic"),
    }  # fmt: skip


def test_what_is_not_given_has_no_heading():
    measurement = make_measurement(values={}, against=None)
    text = render_measurement(MeasurementPage(measurement=measurement))
    read = PageReader(text)
    assert not read.broken and not read.open
    assert [a["href"] for tag, a in read.tags if tag == "a"] == ["#again"]
    assert [tag for tag, _ in read.tags].count("h2") == 1 and "h3" not in {tag for tag, _ in read.tags}
    words = words_of(text)
    assert "40 rows." in words and "No real rows were given" in words and "Encoder minilm" in words
    assert "svg" not in {tag for tag, _ in read.tags} and "dl" not in {tag for tag, _ in read.tags}


@pytest.mark.parametrize(("part", "section"), [("redundant", "rows"), ("by_label", "parts")])
def test_one_part_alone_makes_its_section_alone(part, section):
    measurement = make_measurement(values={})
    given = {part: getattr(make_page(), part)}
    read = PageReader(render_measurement(MeasurementPage(measurement=measurement, **given)))
    assert [a["href"] for tag, a in read.tags if tag == "a"] == [f"#{section}", "#again"]


def test_numbers_that_are_none_of_a_number_do_no_harm():
    values = {"vendi_q1": estimate(NAN, NAN), "mmd": estimate(0.1, NAN, p_value=NAN)}
    profile = Profile(name="dcscore", parameter="tau", points=((0.1, estimate(NAN)), (0.5, estimate(-1.0))))
    order = Profile(name="vendi", parameter="q", points=((0.0, estimate(3.0)), (float("inf"), estimate(2.0))))
    points = dataclasses.replace(make_map(2), x=np.array([NAN, 1.0]))
    page = make_page(
        measurement=make_measurement(values=values), taus=profile, orders=(order,), map=points, by_label={},
        redundant=(), novel=(),
    )  # fmt: skip
    text = render_measurement(page)
    assert "NaN" not in text and ">nan" not in text and ">inf" not in text
    assert 'aria-label="DCScore over tau, with' not in text and 'aria-label="effective number' not in text
    words = words_of(text)
    assert "40 rows." in words and "none" in words
    assert "Map of 1 examples, coloured by origin" in text and "coloured by label" not in text


def test_intervals_below_zero_stay_on_a_logarithmic_axis():
    points = ((0.1, estimate(3.0, 5.0)), (1.0, Estimate(value=2.0, n=40)))
    text = render_measurement(
        MeasurementPage(measurement=make_measurement(), taus=Profile(name="dcscore", parameter="tau", points=points))
    )
    assert "DCScore over tau, with 95% bands" in text and "NaN" not in text


def test_a_colouring_that_tells_nothing_apart_is_left_out():
    assert [p.title for p in draw_map_panels(make_map(6, labels=("one",)))] == ["By origin"]
    assert [p.title for p in draw_map_panels(make_map(6, origins=("real",)))] == ["By label"]
    assert [p.title for p in draw_map_panels(make_map(6, labels=("one",), origins=("real",)))] == ["By origin"]
    assert draw_map_panels(make_map(0)) == []


def read_legend(panel):
    return [name for name, _, _ in panel.legend]


def test_many_labels_share_one_colour_but_the_largest():
    labels = ("big", "big", *(f"label {i:02d}" for i in range(12)))
    panel = draw_map_panels(make_map(2 * len(labels), labels=labels))[1]
    names = read_legend(panel)
    assert len(names) == 9 and names[0] == "big (4)" and names[-1] == "5 other labels (10)"
    assert len({a["fill"] for _, a in Reader(panel.svg).tags if "data-tip" in a}) == 9


def test_levels_stand_in_their_order():
    panel = draw_map_panels(make_map(8, labels=("10", "2", "0.5", "none"), origins=("synthetic",)))[0]
    assert read_legend(panel) == ["0.5 (2)", "2 (2)", "10 (2)", "none (2)"]


def test_provenance_names_nothing_twice():
    rows = list_provenance(make_page(settings={"seed": "9", "device": "cpu"}))
    assert [value for name, value in rows if name == "seed"] == ["7"] and ("device", "cpu") in rows


def test_same_page_same_bytes(page):
    assert render_measurement(make_page()) == page


def test_ways_of_writing():
    assert write_uncertainty(estimate(1.0, p_value=0.03)) == "0.900 to 1.10, p = 0.030"
    assert write_uncertainty(Estimate(value=1.0, n=3)) == ""


@pytest.mark.parametrize(("low", "high"), [(0.02, 1.0), (1.9, 650.0), (30.0, 41.0), (1.0, 1.001), (1e-3, 1e6)])
def test_ticks_lie_within_the_axis_and_are_few(low, high):
    ticks = pick_ticks(low, high)
    assert 2 <= len(ticks) <= 9 and ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
