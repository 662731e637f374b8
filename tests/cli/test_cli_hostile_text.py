"""Texts, labels, levels, columns and file names that try to act on a terminal, a page, a card or a spreadsheet."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from command_line import call, refused
from cuvee.characters import to_json, to_markdown, visible
from cuvee.corpus import load_corpus
from cuvee.errors import ConfigError
from cuvee.study.opening import open_study

pytestmark = pytest.mark.slow  # each is quick, together they are not

LABELS = ("\x1b]0;pwned\x07", "[/INST]", "</script><script>alert(1)</script>")
"""A title that a terminal would take, rich markup that closes nothing, HTML that would run."""
HOSTILE = (*LABELS, "\x1b[2J", "[red]x", ":smile:", "\x9b31m", "&#27;", "\x00", "a|b\nc\td\re", "\u202edlrow", "=1+1")
ANSWERS = (*HOSTILE, "half \ud800")
OWN_DIAL = """
from cuvee.generate.dials import SamplingDial


class Mine(SamplingDial):
    name = "mi\\x1bne"
"""
RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
COLUMN, NAME = "[bold]te\x1b[2Jxt", "re\x1b[2J[red]\u202eal"


def see(capsys, *arguments: object) -> str:
    """What a command that went well shows on both streams: nothing in it acts on a terminal."""
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert RAW.findall(out + err) == []
    return out + err


@pytest.fixture
def rows(headlines) -> list[dict]:
    """Real headlines with a hostile end each, under hostile labels."""
    names = dict(zip(("business", "politics", "sports"), LABELS, strict=True))
    found = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    return [
        {"text": f"{row['text']} {HOSTILE[i % len(HOSTILE)]}", "label": names[row["label"]]}
        for i, row in enumerate(found)
    ]


@pytest.fixture
def real(rows, tmp_path) -> Path:
    folder = tmp_path / NAME
    folder.mkdir()
    path = folder / f"{NAME}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def synthetic(rows, tmp_path) -> Path:
    """Under another column name, which is hostile too."""
    path = tmp_path / "synthetic.jsonl"
    made = [{"text": f"again {row['text']}", "label": row["label"]} for row in rows[::2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def check_page(path: Path) -> str:
    """A page without control characters and scripts, whose charts are XML."""
    page = path.read_text(encoding="utf-8")
    assert RAW.findall(page.replace("\t", "")) == [] and page.count("<script") == 1 and "&#27;" not in page
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    for chart in charts:
        ElementTree.fromstring(chart)
    assert charts and all(visible(label) in page or label.startswith("<") for label in LABELS)
    return page


def test_measured_corpora_and_their_pages(real, synthetic, tmp_path, capsys):
    page, scores = tmp_path / "page.html", tmp_path / "scores.csv"
    base = ["--encoder", "hashing", "--metric", "vendi_q1"]
    shown = see(capsys, "measure", real, *base, "--by", "label", "--against", synthetic,
                "--page", page, "--examples", scores)  # fmt: skip
    assert all(visible(label) in shown for label in LABELS) and visible(NAME) in shown
    check_page(page)
    found = json.loads(call(capsys, "measure", real, *base, "--by", "label", "--json")[1])
    assert set(found["parts"]) == set(LABELS)
    assert visible(NAME) in see(capsys, "compare", real, synthetic, *base, "--draws", 1)
    see(capsys, "compare", real, synthetic, *base, "--draws", 1, "--json")


def test_levels_of_a_file_are_drawn_and_shown(real, tmp_path, capsys):
    corpus = load_corpus(real, origin="synthetic")
    levels = [{**row, "dial": "[i]d\x00", "level": HOSTILE[i % 4]} for i, row in enumerate(corpus.table.to_pylist())]
    path, page = tmp_path / "pool.jsonl", tmp_path / "page.html"
    path.write_text("".join(json.dumps(row) + "\n" for row in levels), encoding="utf-8")
    shown = see(capsys, "measure", path, "--by", "level", "--encoder", "hashing", "--page", page)
    assert all(visible(level) in shown for level in HOSTILE[:4])
    check_page(page)


def test_blends_their_cards_and_models(real, synthetic, tmp_path, capsys):
    blend, model, parts = tmp_path / f"blend{NAME}", tmp_path / "mo[/red]del", tmp_path / "parts"
    see(capsys, "mix", real, synthetic, "--out", blend, "--share", 0.3)
    card = (blend / "README.md").read_text(encoding="utf-8")
    assert RAW.findall(card) == [] and "<script" not in card and yaml.safe_load(card.split("---")[1])["pretty_name"]
    table = [line for line in card.splitlines() if to_markdown(LABELS[1]) in line]
    assert [re.sub(r"\\.", "", line).count("|") for line in table] == [5]
    shown = see(capsys, "select", synthetic, "--rows", 30, "--encoder", "hashing", "--real", real, "--no-match-lengths",
                "--out", tmp_path / "s.csv", "--guard-cells")  # fmt: skip
    assert "s.csv" in shown
    shown = see(capsys, "split", real, "--out", parts, "--format", "jsonl")
    assert all(visible(label) in shown for label in LABELS)
    see(capsys, "train", parts / "train.jsonl", "--encoder", "hashing", "--out", model)
    assert RAW.findall((model / "README.md").read_text(encoding="utf-8")) == []
    shown = see(capsys, "evaluate", model, real, "--encoder", "hashing", "--per-label", "--compare", model)
    assert all(visible(label) in shown for label in LABELS)
    see(capsys, "evaluate", model, real, "--encoder", "hashing", "--per-label", "--json")
    see(capsys, "predict", model, real, "--encoder", "hashing", "--out", tmp_path / "p.csv")


def test_cells_that_a_spreadsheet_would_run(tmp_path, capsys):
    told = ["=1+1", "+cmd", "-cmd|'/C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "-1.5", "+3", "a=b", "1e-3"]
    lines = [{"text": text, "label": "=x" if i % 2 else "y", "=id": -1.5} for i, text in enumerate(told)]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def read(path):
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    call(capsys, "train", data, "--encoder", "hashing", "--out", tmp_path / "m")
    base = ["predict", tmp_path / "m", data, "--encoder", "hashing", "--out", tmp_path / "p.csv"]
    see(capsys, *base)
    guarded = [f"'{text}" for text in told[:6]] + told[6:]
    found = read(tmp_path / "p.csv")
    assert [row["text"] for row in found] == guarded and {row["'=id"] for row in found} == {"-1.5"}
    assert {row["label"] for row in found} == {"'=x", "y"}
    see(capsys, *base, "--no-guard-cells")
    assert [row["text"] for row in read(tmp_path / "p.csv")] == told
    measure = ["measure", data, "--encoder", "hashing", "--metric", "vendi_q1", "--examples", tmp_path / "e.csv"]
    see(capsys, *measure)
    assert [row["text"] for row in read(tmp_path / "e.csv")] == guarded
    see(capsys, *measure, "--no-guard-cells")
    assert [row["text"] for row in read(tmp_path / "e.csv")] == told
    out = tmp_path / "o.csv"
    for command in (
        ["select", data, "--encoder", "hashing", "--keep-degenerate", "--no-dedupe"],
        ["mix", data, data, "--share", 0.0],
    ):
        see(capsys, *command, "--out", out)
        assert sorted(load_corpus(out).texts) == sorted(told)  # Cuvée's own file is read back whole
        see(capsys, *command, "--out", out, "--guard-cells")
        assert sorted(load_corpus(out).texts) == sorted(guarded)
        assert "it is for a CSV" in refused(capsys, *command, "--out", tmp_path / "o.jsonl", "--guard-cells")


@pytest.mark.parametrize("value", ["a\x1bb", "a\x00", "a\nb", "\u202ea", "\ud800"], ids=ascii)
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("data.label", lambda s, v: s["data"].update(label=v)),
        ("data.text", lambda s, v: s["data"].update(text=v)),
        ("dials.0.levels.0.name", lambda s, v: s.update(dials=[{"name": "sampling", "levels": [{"name": v}]}])),
        ("pools.0.level", lambda s, v: s.update(
            dials=[], generator={"kind": "files"}, pools=[{"dial": "d", "level": v, "path": "x"}])),
        ("pools.0.dial", lambda s, v: s.update(
            dials=[], generator={"kind": "files"}, pools=[{"dial": v, "level": "d", "path": "x"}])),
        ("name", lambda s, v: s.update(name=v)),
    ],
)  # fmt: skip
def test_names_are_checked_when_the_config_is_read(settings, tmp_path, capsys, key, change, value):
    change(settings, value)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    line = refused(capsys, "plan", path)
    named = re.search(rf"\b{key}(: | is )", line) or "half of a surrogate pair" in line  # which no YAML may hold
    assert named and "line " in line and RAW.findall(line) == []


@pytest.mark.trust("hostile_dial")
def test_levels_of_a_dial_of_ones_own_are_checked_before_anything_is_sent(settings, local, tmp_path, monkeypatch):
    (tmp_path / "hostile_dial.py").write_text(OWN_DIAL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    given = {**settings, "dials": [{"name": "hostile_dial:Mine", "levels": [0.5]}]}
    told = r"^dials.0: 'mi\\x1bne' holds a control character"
    with pytest.raises(ConfigError, match=told), open_study(given, out=tmp_path / "run") as flow:
        _ = flow.pools
    assert not local.bodies


@pytest.mark.slow
def test_a_whole_study(real, settings, local, tmp_path, capsys):
    words = local.text
    local.text = lambda body: f"{words(body)} {ANSWERS[body['seed'] % len(ANSWERS)]}"
    settings["data"] = {"real": str(real)}
    settings["describe"] = "news \x1b[2J headlines"
    study, run = tmp_path / "study.yaml", tmp_path / "r[/red]un"
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    see(capsys, "plan", study)
    see(capsys, "run", study, "--out", run)
    check_page(run / "report.html")
    card = (run / "blend" / "README.md").read_text(encoding="utf-8")
    assert RAW.findall(card) == [] and "<script" not in card
    for command in (["status", run], ["ledger", run], ["measure", run], ["recommend", run]):
        shown = "".join(see(capsys, *command).split())  # titles fold at the width of their table
        assert "r[/red]un" in shown or command[0] in ("measure", "recommend")
        see(capsys, *command, "--json")


def test_rows_from_an_endpoint_that_answers_so(real, local, tmp_path, capsys):
    local.text = lambda body: f"{body['seed']} words {ANSWERS[body['seed'] % len(ANSWERS)]}"
    local.models = ["ti\x1b[2Jny"]
    out = tmp_path / NAME / "made.csv"
    url = f"http://127.0.0.1:{local.port}/v1"
    base = ["generate", real, "--base-url", url, "--api", "completions", "--rows", 4, "--out", out]
    see(capsys, *base, "--model", "ti\x1b[2Jny")
    assert len(load_corpus(out)) > 0
    assert visible("ti\x1b[2Jny") in see(capsys, "ledger", out.with_suffix(".ledger.sqlite"))
    noted = call(capsys, *base, "--model", "ot\x1b[31mher")[2]
    assert visible("ot\x1b[31mher") in noted and RAW.findall(noted) == []


def test_init_shows_what_it_read(real, tmp_path, capsys):
    assert visible(NAME) in see(capsys, "init", real, "--out", tmp_path / "study.yaml")
    data = tmp_path / "columns.csv"
    with data.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([[COLUMN, "label"], *([f"a text {i}", "xy"[i % 2]] for i in range(20))])
    base = ["--text", COLUMN, "--label", "label"]
    see(capsys, "measure", data, *base, "--encoder", "hashing", "--metric", "vendi_q1", "--by", "label")
    line = refused(capsys, "init", data, *base, "--out", tmp_path / "other.yaml")
    assert visible(COLUMN) in line and RAW.findall(line) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["measure", "no\x1b[2J\udc9b[/INST].jsonl"],
        ["measure", "--x\x1b[2J"],
        ["\x1b]0;p\x07"],
        ["split", "x.csv", "--out", "y", "--format", "\x9b1"],
        ["compare", "b\u202e.json", "a.json"],
    ],
)
def test_errors_of_every_kind(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "") and RAW.findall(err) == [] and "rror: " in err
    shown = visible(max(arguments, key=lambda argument: len(RAW.findall(argument))))
    assert shown in err


def test_half_a_surrogate_pair_in_a_file(tmp_path, capsys):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n{"text": "a\\ud800", "label": "b"}\n', encoding="utf-8")
    assert "d.jsonl, row 2: " in refused(capsys, "measure", path)


@pytest.mark.slow
def test_a_terminal_gets_the_styles_of_the_code_alone(real):
    """With colours forced there are rich's own codes, and none from the data."""
    done = subprocess.run(
        [sys.executable, "-m", "cuvee", "measure", real, "--by", "label", "--encoder", "hashing"],
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "200"},
        capture_output=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert "\x1b[1m" in done.stdout
    # of the code: styles, and on stderr a hidden cursor and lines that are drawn again
    own = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[12]?[AK]|\r")
    assert RAW.findall(own.sub("", done.stdout + done.stderr)) == []
    assert all(visible(label) in own.sub("", done.stdout) for label in LABELS[:2])  # the third is long


def test_json_is_json_and_says_the_same():
    told = {"a\x9b": [*HOSTILE, "\u202e", "\ud800", "é"]}
    assert json.loads(to_json(told)) == told and RAW.findall(to_json(told)) == [] and "é" in to_json(told)


def test_only_the_command_line_prints():
    """And there only through cli/console.py."""
    package = Path(__file__).parents[2] / "src" / "cuvee"
    talks = re.compile(r"\bprint\(|\becho\(|sys\.std(out|err)\.write|\bConsole\(|from_markup")
    allowed = {"cli/console.py", "generate/serve_gguf.py"}  # the second tells its parent process an address
    found = {
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        if str(path.relative_to(package)) not in allowed
        for line in path.read_text(encoding="utf-8").splitlines()
        if talks.search(line) and not re.search(r"(console\.(out|err)|console)\.print\(", line)
    }
    assert found == set()
