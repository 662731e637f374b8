"""``cuvee check`` as a gate: on real headlines, and on damaged copies of others."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from command_line import call, refused
from cuvee.study.demo import read_headlines

LABELS = ("business", "politics", "sports")


@pytest.fixture
def sides(headlines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    others = [{"text": text, "label": label} for text, label in read_headlines() if label in LABELS]
    good = [row for label in LABELS for row in [r for r in others if r["label"] == label][60:110]]
    for name, rows in (("good", good), ("bad", good[:100] + good[:50])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return headlines


def write_rules(**rules):
    Path("rules.yaml").write_text(yaml.safe_dump({"encoder": "hashing", **rules}), encoding="utf-8")


def test_a_file_of_repeats_fails_and_a_good_one_passes(sides, capsys, monkeypatch):
    write_rules(against=str(sides), findings=["repeats"])
    code, out, _ = call(capsys, "check", "good.jsonl", "bad.jsonl", "--junit", "found.xml")
    assert code == 1 and "good.jsonl: passes" in out and "bad.jsonl: fails\n- repeats: 50 of 150 rows" in out
    told = call(capsys, "measure", "bad.jsonl", "--metric", "exact_duplicate_rate")[1]
    assert "`cuvee select bad.jsonl`" in out and "`cuvee select bad.jsonl`" in told
    suite = ElementTree.parse("found.xml").getroot()
    assert suite.get("failures") == "1" and [len(case) for case in suite] == [0, 1]
    compared = call(capsys, "compare", "good.jsonl", "bad.jsonl", "--draws", 2, "--metric", "exact_duplicate_rate")[1]
    assert "bad.jsonl: " in compared and "`cuvee select bad.jsonl`" in " ".join(compared.split())
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "::error file=bad.jsonl,title=repeats::50 of" in call(capsys, "check", "bad.jsonl")[1]
    write_rules(against=str(sides), findings=["lengths"])
    assert call(capsys, "check", "bad.jsonl")[0] == 0


@pytest.mark.usefixtures("sides")
def test_limits_hold_numbers(capsys):
    for limit, code in ((0.4, 0), (0.2, 1)):
        write_rules(findings=[], limits={"exact_duplicate_rate": {"max": limit}})
        found = call(capsys, "check", "bad.jsonl", "--json")
        assert found[0] == code and json.loads(found[1])["passed"] == (code == 0)
    write_rules(findings=[], limits={"mean_words": {"min": 99}})
    assert "below its limit of 99" in call(capsys, "check", "good.jsonl")[1]


@pytest.mark.usefixtures("sides")
def test_rules_that_cannot_be_kept_are_refused(capsys):
    assert "--write-rules" in refused(capsys, "check", "good.jsonl")
    write_rules(findings=["repeat"])
    assert "did you mean 'repeats'" in refused(capsys, "check", "good.jsonl")
    write_rules(limits={"vendi": {"min": 3}})
    assert "unknown metric 'vendi'" in refused(capsys, "check", "good.jsonl")
    write_rules(findings=["leaks"])
    assert "held_out" in refused(capsys, "check", "good.jsonl")


@pytest.mark.slow
def test_rules_made_from_real_rows_pass_real_rows(sides, capsys):
    code, out, _ = call(capsys, "check", sides, "--write-rules", "--json")
    assert code == 0 and json.loads(out) == {"rules": "rules.yaml"}
    made = yaml.safe_load(Path("rules.yaml").read_text(encoding="utf-8"))
    assert made["against"] == sides.name and made["limits"]["exact_duplicate_rate"]["max"] < 0.05
    assert call(capsys, "check", "good.jsonl")[0] == 0
    assert call(capsys, "check", "bad.jsonl")[0] == 1
    assert "already there" in refused(capsys, "check", sides, "--write-rules")
