"""The page, from a small study whose trials are made up but whose advice is the real one."""

import base64
import csv
import dataclasses
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from cuvee.recommend import confirm_cell, recommend_mixture
from cuvee.records import (
    Cell,
    Composition,
    DatasetMap,
    Draw,
    Estimate,
    Level,
    Measurement,
    Scores,
    Trial,
    TrialFailure,
)
from cuvee.records.generation import GenerationAccount
from cuvee.report import ReportData
from cuvee.report.charts import COLOURS, DARK, save_figures
from cuvee.report.study_page import draw_figures, draw_surface, render_report
from cuvee.report.tables import (
    PoolFacts,
    RunRecord,
    list_findings,
    list_protocol,
    write_number,
    write_p,
    write_points,
    write_seconds,
    write_size,
)

pytestmark = pytest.mark.slow  # each is quick, together they are not

HOSTILE = "<script>alert('x')</script><img src=https://example.org/a.png>"
LEVELS = {"topics": {"1": 0.0, "4": 0.05, "16": 0.02}, "<b>sampling</b>": {"0.2": 0.03, "2.0": -0.08}}
ITEMS = 400


def make_trials(part="validation"):
    rng = np.random.default_rng(0)
    ease = rng.random(ITEMS)
    cells = {Cell(kind="real-only", rows_per_label=4): 0.7}
    for share in (0.5, 0.75, 0.9):
        cells[Cell(kind="real-duplicated", share=share, rows_per_label=4)] = 0.705
        for dial, gains in LEVELS.items():
            for name, gain in gains.items():
                cells[Cell(kind="blend", dial=dial, level=name, share=share, rows_per_label=4)] = 0.7 + gain
    trials = []
    for cell, chance in cells.items():
        share = cell.share if cell.kind == "blend" else 0.0
        composition = Composition(
            share=share,
            real_rows=20,
            synthetic_rows=60,
            unique_rows=80,
            most_repeats=1,
            label_counts={"sport": (10, 30), HOSTILE: (10, 30)},
        )
        for draw in range(3):
            correct = 0.9 * ease + 0.1 * rng.random(ITEMS) < chance + rng.normal(0, 0.005)
            trials.append(
                Trial(
                    cell=cell,
                    draw=Draw(generation=draw, sampling=0, training=0),
                    composition=composition,
                    steps=30,
                    part=part,
                    scores=Scores(n=ITEMS, values={}, correct=correct),
                )
            )
    return trials


def make_measurement(name, diversity):
    values = {
        "vendi_q1": Estimate(value=diversity, low=diversity - 2, high=diversity + 2, n=60),
        "mmd": Estimate(value=0.0312, n=60, p_value=0.0005),
        "label_agreement": Estimate(value=0.91, low=0.85, high=0.97, n=60),
    }
    values |= {
        f"dcscore_tau{tau:g}": Estimate(value=diversity * (1 - tau) + 1, n=60, settings={"tau": tau})
        for tau in (0.05, 0.1, 0.5, 1.0)
    }
    return Measurement(
        name=name, fingerprint="f", against=None, n=60, encoder="hashing", encoder_hash="h" * 64, seed=0, values=values
    )


def make_map(groups, points=40, text="row {} \x1b[31mred"):
    at, names = np.linspace(0, 6, points), ["real", *groups]
    group = tuple(names[i % len(names)] for i in range(points))
    return DatasetMap(
        x=np.cos(at), y=np.sin(at), origin=tuple("real" if g == "real" else "synthetic" for g in group), group=group,
        text=tuple(f"{text.format(i)} {HOSTILE}" for i in range(points)), explained=0.2, rows=400, grouping="level",
    )  # fmt: skip


def make_data(*, confirmed=True, **changes):
    levels = [Level(dial=dial, name=name, rank=i) for dial, gains in LEVELS.items() for i, name in enumerate(gains)]
    measurements = {level.key: make_measurement(level.key, 20.0 + 10 * level.rank) for level in levels}
    options = {
        "level_ranks": {dial: list(gains) for dial, gains in LEVELS.items()},
        "measurements": measurements,
    }
    failure = TrialFailure(
        cell=Cell(kind="real-only", rows_per_label=4, trainer="encoder"),
        draw=Draw(generation=0, sampling=0, training=0),
        stage="train",
        reason=HOSTILE,
    )
    trials = make_trials()
    best = recommend_mixture(trials, **options).best.cell
    confirmation = None
    if confirmed:
        confirmation = dataclasses.replace(confirm_cell(make_trials("test"), best, fresh_draws=True), note=HOSTILE)
    advice = recommend_mixture(trials, [failure], confirmation=confirmation, **options)
    content = {
        "title": f"headlines {HOSTILE}",
        "advice": dataclasses.replace(advice, scope=f"Headlines {HOSTILE}. {advice.scope}"),
        "levels": levels,
        "measurements": measurements | {"real": make_measurement("real", 45.0)},
        "failures": [failure],
        "generation": GenerationAccount(requests=1234),
        "composition": trials[0].composition,
        "pools": {
            level.key: PoolFacts(
                samples=[("sport", f"A headline of {level.key}", "most novel"), (HOSTILE, HOSTILE, "")],
                rejected={"too short": 2, HOSTILE: 3},
                kept=95,
                note=HOSTILE if level.key == "topics=4" else "",
            )
            for level in levels
        },
        "record": RunRecord(
            settings={"data": HOSTILE},
            seconds={"generate": 241.2, "train": 8.0},
            access_log=(f"confirmation: {HOSTILE}",),
            study_yaml=f"name: {HOSTILE}\n",
        ),
        "map": make_map([level.key for level in levels]),
        "version": "9.9",
    }
    return ReportData(**(content | changes))


@pytest.fixture(scope="module")
def page():
    return render_report(make_data())


def test_what_to_avoid_what_it_holds_for_and_what_was_left_out_open_the_page(page):
    data = make_data()
    ids = [finding.id for finding in list_findings(data)]
    assert ids[0] == "answer" and "scope" in ids
    assert [name for name in ids[1:] if f'id="finding-{name}"' not in page] == []
    assert page.index('id="finding-scope"') < page.index('id="amount"')


class Reader(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in order."""

    VOID = ("meta", "br", "link", "img", "path", "line")

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open, self.broken = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def check_fetches_nothing(page, reader):
    """No address but those within the page and its data, and one script, which its policy names by its hash."""
    assert not reader.broken and not reader.open
    tags = [tag for tag, _ in reader.tags]
    assert not {"link", "iframe", "img", "object", "embed"} & set(tags) and tags.count("script") == 1
    for tag, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            address = attributes.get(name, "#")
            assert address.startswith("#") or (tag == "a" and address.startswith("data:text/csv;")), (tag, address)
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in page
    assert "default-src 'none'" in page and "@import" not in page and "xmlns" not in page
    styles = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in styles
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_fetched_and_only_the_own_script_runs(page):
    check_fetches_nothing(page, Reader(page))


def test_hostile_text_is_shown_as_text(page):
    assert page.count("<script") == 1 and "<img" not in page and "<b>sampling" not in page and "\x1b" not in page
    assert page.count("&lt;script&gt;alert(") > 10
    words = "".join(Reader(page).words)
    assert HOSTILE in words and "A headline of topics=4" in words


def test_the_page_says_what_the_advice_says(page):
    data = make_data()
    advice, words = data.advice, " ".join("".join(Reader(page).words).split())
    assert advice.decision == "use" and "Use synthetic data" in words
    assert advice.sentence.split(": ", 1)[1][1:] in words
    gain = advice.confirmation.gains[0]
    assert f"{write_points(gain.value)}" in words and "1,234" in words and "4 min 01 s" in words
    for summary in advice.cells:
        assert f"{100 * summary.accuracy:.1f}%" in words
    for shape in advice.shapes:
        assert shape.verdict in words
    assert "not confirmed on the locked test" not in words
    assert "100 answers" in words and "− 2 too short" in words and "= 95 rows left" in words and "Cuvée 9.9" in words


def test_every_chart_is_there_and_named(page):
    charts = [
        attributes for tag, attributes in Reader(page).tags if attributes.get("class") == "chart" and tag == "svg"
    ]
    assert [chart["aria-label"] for chart in charts] == [
        "Gains of the best blend with 95% intervals",
        "Accuracy by amount: topics",
        "Accuracy by amount: <b>sampling</b>",
        "Accuracy by amount and measured diversity",
        "Accuracy by measured diversity",
        "Diversity and shift of every pool",
        "Map of 40 examples, coloured by level",
    ]
    assert all(chart["role"] == "img" and chart["tabindex"] == "0" for chart in charts)


def test_the_surface_has_every_blend_both_baselines_and_what_the_best_is_not_told_apart_from():
    data = make_data()
    (surface,) = draw_surface(data)
    found = {(row["pool"], row["amount"]): row for row in surface.rows}
    pools = [f"{dial}={name} ({20 + 10 * i:.1f})" for dial, gains in LEVELS.items() for i, name in enumerate(gains)]
    assert set(found) == {(p, a) for p in [*pools, "real rows repeated"] for a in ("1x", "3x", "9x")} | {
        ("real rows alone", "0x")
    }
    alike = {(s.cell.dial, s.cell.level, s.cell.amount) for s in data.advice.not_distinguished}
    standings = [row["standing"] for row in surface.rows]
    assert standings.count("best") == 1 and standings.count("not distinguishable") == len(alike) > 0
    best = next(row for row in surface.rows if row["standing"] == "best")
    assert best["score"] == pytest.approx(100 * data.advice.best.accuracy) and "best" in best["tip"]


def test_each_chart_is_saved_for_papers_with_its_data(tmp_path):
    data = make_data()
    written = save_figures(draw_figures(data), tmp_path)
    assert len(written) == 3 * 7 and {path.suffix for path in written} == {".svg", ".png", ".csv"}
    assert all(path.parent == tmp_path and path.stat().st_size > 100 for path in written)
    svg = (tmp_path / "accuracy-by-amount-topics.svg").read_text("utf-8")
    assert svg.startswith("<svg") and "topics" not in svg and ">16</text>" in svg  # with its legend
    assert (tmp_path / "accuracy-by-amount-topics.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "real-and-synthetic-rows.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 40 and rows[0].keys() == {"x", "y", "origin", "level", "text", "opacity"}
    assert sorted(row["text"] for row in rows) == sorted(f"{text}" for text in data.map.text)


def test_a_map_of_three_thousand_long_texts_keeps_the_page_small():
    keys = [f"topics={name}" for name in LEVELS["topics"]]
    page = render_report(make_data(map=make_map(keys, 3000, "第{}行" + "字" * 300)))
    assert page.count('data-tip="') > 3000 and len(page.encode()) < 5_000_000


@pytest.mark.parametrize(
    ("pool", "steps"),
    [
        (PoolFacts(rejected={"short": 2, "copy": 3}, kept=5), ["10 answers", "3 copy", "2 short", "5 rows left"]),
        (PoolFacts(rejected={"leak": 1}, kept=5, read=9),
         ["9 rows read", "1 leak", "3 not chosen for this level", "5 rows left"]),
        (PoolFacts(kept=4, read=4), ["4 rows read", "4 rows left"]),
    ],
)  # fmt: skip
def test_filters_add_up(pool, steps):
    assert [f"{count} {name}" for name, count in pool.list_steps()] == steps


def test_the_protocol_says_what_does_not_hold():
    held = dict((sentence, holds) for holds, sentence in list_protocol(make_data()))
    assert held["The best blend was confirmed on 400 rows of the locked test."]
    assert held["It was confirmed on fresh draws."] and not held["1 trial failed."]
    bare = [holds for holds, sentence in list_protocol(make_data(confirmed=False)) if "not confirmed" in sentence]
    assert bare == [False]


def test_charts_use_only_colours_that_the_dark_theme_knows(page):
    inside = "".join(re.findall(r'<svg class="chart.*?</svg>', page, flags=re.S))
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]+)"', inside))
    assert used and used <= set(COLOURS)
    assert len(COLOURS) == len(DARK) == len(set(COLOURS))
    style = page[: page.index("</style>")]
    assert all(f'[fill="{light}"]' in style for light in used)


def test_bare_advice_renders():
    advice = recommend_mixture([], level_ranks={"topics": ["1"]})
    text = render_report(ReportData(title="empty", advice=advice, levels=[Level(dial="topics", name="1", rank=0)]))
    words = " ".join("".join(Reader(text).words).split())
    assert "Not settled" in words and "No blend was trained" in words and "not confirmed" in words


def test_numbers_that_are_none_of_a_number_do_no_harm():
    nan = float("nan")
    values = {
        "vendi_q1": Estimate(value=20.0, low=nan, high=nan, n=60),
        "mmd": Estimate(value=nan, n=60),
        "dcscore_tau1": Estimate(value=1.0, n=60, settings={"tau": 1.0}),
        "dcscore_tau0.1": Estimate(value=1.0, n=60, settings={"tau": 0.1}),
    }
    odd = {
        f"topics={name}": Measurement(
            name=name, fingerprint="f", against=None, n=60, encoder="e", encoder_hash="h", seed=0, values=values
        )
        for name in LEVELS["topics"]
    }
    text = render_report(make_data(confirmed=False, measurements=odd))
    assert "Accuracy by measured diversity" in text and "Diversity and shift of every pool" not in text
    assert "NaN" not in text and ">nan" not in text


def test_same_data_same_page(page):
    assert render_report(make_data()) == page


def test_an_unconfirmed_winner_is_said_to_be_so():
    words = "".join(Reader(render_report(make_data(confirmed=False, measurements={}))).words)
    assert "was not confirmed on the locked test" in words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0412, "0.041"),
        (3.14159, "3.14"),
        (31.42, "31.4"),
        (1234.5, "1,234"),
        (-0.5, "−0.500"),
        (2e-5, "2.0e-05"),
    ],
)
def test_numbers(value, text):
    assert write_number(value) == text


def test_other_ways_of_writing():
    assert [write_points(v) for v in (0.0312, -0.0312, -0.0001)] == ["+3.1", "−3.1", "0.0"]
    assert [write_p(v) for v in (0.0004, 0.0321, 0.5)] == ["< 0.001", "0.032", "0.50"]
    assert [write_seconds(v) for v in (8.21, 200.4)] == ["8.2 s", "3 min 20 s"]
    assert [write_size(v) for v in (0.01, 0.005, 0.02)] == ["1 point", "0.5 points", "2 points"]


def test_the_room_loads_nothing_heavy():
    code = (
        "import sys, cuvee.report, cuvee.recommend;"
        "heavy = ('torch', 'transformers', 'ray', 'datasets', 'sklearn', 'altair', 'vl_convert');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
