"""What the site says is so: its code runs, its commands and configs are accepted, its reference is whole."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import cuvee
from cuvee.cli.app import COMMANDS, load_commands
from cuvee.config.collapse import CollapseConfig
from cuvee.config.reading import make_config
from cuvee.config.schema import CheckRules, StudyConfig
from cuvee.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"(.*?)\")?\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page, *languages):
    """Title and content of the blocks of code of a page in one of the languages."""
    found = [(m[3] or "", re.sub(f"^{m[1]}", "", m[4], flags=re.M), m[2]) for m in BLOCK.finditer(PAGES[page])]
    return [(title, code) for title, code, language in found if language in languages]


def commands(page):
    """Every command of a page that begins with cuvee, in a block or within a sentence."""
    text = "\n".join(code for _, code in blocks(page, "", "bash")).replace("\\\n", " ")
    lines = [line.partition("  #")[0] for line in text.splitlines()]
    spoken = re.findall(r"`((?:PYTHONPATH=\. )?cuvee [^`]*)`", BLOCK.sub("", PAGES[page]))
    return [c.removeprefix("PYTHONPATH=. ") for c in (*lines, *spoken) if re.match(r"(PYTHONPATH=\. )?cuvee [a-z]", c)]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "decisions.md" and commands(page)])
def test_every_command_is_one_that_the_command_line_takes(page):
    for command in commands(page):
        name, *arguments = shlex.split(command)[1:]
        assert name in COMMANDS, command
        parser = load_commands(name).commands[name]
        known = {"--help"} | {
            option for parameter in parser.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {argument.partition("=")[0] for argument in arguments if re.match("--?[a-z]", argument)} <= known, (
            command
        )


BASE = {
    "data": {"real": "real.csv"}, "generator": {"kind": "embedded"}, "dials": [{"name": "sampling", "levels": [0.2, 1]}]
}  # fmt: skip
FILES = BASE | {"generator": {"kind": "files"}, "pools": [{"dial": "source", "path": "pool.csv"}]}
del FILES["dials"]


def configs(page):
    """The YAML of a page; where lines are alternatives, each of them."""
    for title, code in blocks(page, "yaml"):
        if re.search(r"^(\w+):.*\n(?:.*\n)*\1:", code, flags=re.M):
            yield from ((title, yaml.safe_load(line)) for line in code.splitlines())
        else:
            yield title, yaml.safe_load(code)


@pytest.mark.parametrize(
    "content", [content for page in PAGES for _, content in configs(page)], ids=lambda content: str(content)[:40]
)
def test_every_config_is_one_that_is_taken(content):
    base = FILES if "pools" in content or content.get("generator") == {"kind": "files"} else BASE
    if "model" in content:
        assert make_config(content, CollapseConfig).name == content["name"]
    elif "limits" in content:
        assert make_config(content, CheckRules).limits
    else:
        task = {"task": "generation"} if "evaluate" in content else {}
        made = make_config({**base, **task, **content}, StudyConfig).model_dump(mode="json")
        assert content.keys() <= made.keys()


def test_the_reference_has_every_public_name_once_and_the_navigation_every_page():
    names = re.findall(r"^::: cuvee\.(\w+)$", PAGES["reference/python.md"], flags=re.MULTILINE)
    assert sorted([*names, "__version__"]) == cuvee.__all__
    shown = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f" {page}\n" in shown for page in PAGES)


def test_a_dial_and_a_metric_of_ones_own(tmp_path, monkeypatch):
    """The how-to's modules, word for word."""
    for title, code in blocks("how-to.md", "python"):
        if title:
            (tmp_path / title).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with cuvee.trust_modules("my_dials", "my_metrics"):
        from cuvee.generate.dials import make_dial

        dial = make_dial(
            "my_dials:PersonasDial", {"levels": [1, 4], "personas": ["a nurse", "a pilot", "a cook", "a poet"]}
        )
        one, four = ({slot.key for slot in dial.slots(level, ["sport"], 0, 8)} for level in ("1", "4"))
        corpus = cuvee.Corpus.from_rows([{"text": text, "target": "a"} for text in ("why?", "no", "who? ", "yes")])
        found = cuvee.measure_corpus(corpus, metrics=["my_metrics:QUESTIONS"])
    assert len(one) == len(four) == 8 and len(one & four) == 2
    assert found.values["question_rate"].value == 0.5
    for name in ("my_dials", "my_metrics"):
        sys.modules.pop(name)


def test_the_selector_of_the_how_to(capsys):
    (code,) = [code for title, code in blocks("how-to.md", "python") if not title and "RowSelector" in code]
    exec(compile(code, "how-to.md", "exec"), {})
    assert capsys.readouterr().out == "40 rows, 30 of label a\n"


@pytest.mark.slow
@pytest.mark.timeout(3600)  # two and three minutes of CPU; far more by the clock beside other work
@pytest.mark.parametrize(
    ("page", "run", "made"),
    [
        ("tutorial.md", "headlines", ["predicted.csv", "blend.parquet"]),
        ("tutorial-sft.md", "chats", ["predicted.jsonl", "runs/chats/model/README.md"]),
    ],
)
def test_the_tutorials_word_for_word(tmp_path, page, run, made):
    """All that a reader types, from the CSV on, in an empty folder; the install and the change of folder are not."""
    here = {**os.environ, "COLUMNS": "80"}
    for match in BLOCK.finditer(PAGES[page]):
        _, language, title, code = match.groups()
        if title and not title.startswith("part of"):
            (tmp_path / title).write_text(code, encoding="utf-8")
        for words in map(shlex.split, code.splitlines() if language == "bash" else ()):
            if words[0] in ("cuvee", "python"):
                start = [sys.executable, "-m", "cuvee"] if words[0] == "cuvee" else [sys.executable]
                done = subprocess.run(
                    [*start, *words[1:]], cwd=tmp_path, env=here, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    folder = tmp_path / "runs" / run
    assert json.loads((folder / "advice.json").read_text(encoding="utf-8"))["decision"]
    assert len(cuvee.load_corpus(folder / "blend")) >= 20
    assert all((tmp_path / name).exists() for name in made)


@pytest.mark.slow
def test_the_notebook_holds_what_its_cells_show():
    """Words and the number of digits are those of a fresh run, numbers agree to a fiftieth; charts are there."""
    spec = spec_from_file_location("write_notebook", DOCS / "write_notebook.py")
    writer = module_from_spec(spec)
    spec.loader.exec_module(writer)
    stored, fresh = (
        [data for cell in notebook["cells"] for output in cell.get("outputs", ()) for data in [output["data"]]]
        for notebook in (json.loads(writer.NOTEBOOK.read_text(encoding="utf-8")), writer.run_notebook())
    )
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
    assert len(stored) == len(fresh) == 7 and sum("image/svg+xml" in data for data in fresh) == 2
    for old, new in zip(stored, fresh, strict=True):
        assert old.keys() == new.keys()
        before, after = ("".join(data["text/plain"]) for data in (old, new))
        assert number.sub("#", before) == number.sub("#", after)
        assert [float(x) for x in number.findall(after)] == pytest.approx(
            [float(x) for x in number.findall(before)], rel=0.02, abs=0.02
        )


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_no_other_host_for_anything(tmp_path):
    """No dead link, no page that nothing leads to, no script, style, font or picture from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?([^\s\">]+)", html)
        assert not [each for each in loaded if re.match("(https?:)?//", each)], page


def test_the_citation_is_of_this_version_and_has_what_the_format_requires():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == cuvee.__version__ and found["cff-version"] == "1.2.0" and found["type"] == "software"
    for part in (found, *found["references"]):
        assert part["title"] and part["authors"] and all(a.keys() & {"name", "family-names"} for a in part["authors"])
    with pytest.raises(ConfigError):
        make_config(found, StudyConfig)
