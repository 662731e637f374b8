import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuvee.characters import visible
from cuvee.config.reading import config_schema, config_to_yaml, make_config, read_config, render_template
from cuvee.config.schema import StudyConfig
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError

GOOD = "data:\n  real: x.csv\ndials:\n- name: sampling\n"


def read(tmp_path, text: str):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_config(path)


def test_paths_are_relative_to_the_file(tmp_path):
    config = read(tmp_path, GOOD)
    assert config.data.real == str(tmp_path / "x.csv")
    assert config.dials[0].levels == (0.2, 0.8, 1.4, 2.0)


def test_resolved_config_reads_back_the_same(tmp_path):
    config = read(tmp_path, GOOD)
    assert read(tmp_path, config_to_yaml(config)) == config
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  real: x.csv\n  lable: y\n", "line 3: unknown key 'data.lable'; did you mean 'label'?"),
        ("dta:\n  real: x.csv\n", "line 1: unknown key 'dta'; did you mean 'data'?"),
        ("dials:\n- name: sampling\n", "key 'data' is missing; add it"),
        (GOOD + "generator:\n  kind: endpont\n", "line 5: generator.kind is 'endpont'; did you mean 'endpoint'?"),
        (GOOD + "generator:\n  kind: embedded\n  slotz: 3\n", "line 7: unknown key 'generator.slotz'"),
        (GOOD + "generator:\n  kind: endpoint\n  model: m\n", "line 5: key 'generator.base_url' is missing"),
        ("data:\n  real: x\ndials:\n- name: topcs\n", "dials.0.name is 'topcs'; did you mean 'topics'?"),
        ("data:\n  real: x\ndials:\n- name: sampling\n  lvls: []\n", "line 5: unknown key 'dials.0.lvls'"),
        (GOOD + "mix:\n  regime: augmnt\n", "line 6: mix.regime is 'augmnt'; did you mean 'augment'?"),
        (GOOD + "mix:\n  shares: [0.5, 1.5]\n", "mix.shares.1: input should be less than 1 (got 1.5)"),
        (GOOD + "mix:\n  shares: [0.5]\n", "shape_share 0.75 is not among shares [0.5]"),
        (GOOD + "seed: -1\n", "line 5: seed: input should be greater than or equal to 0 (got -1)"),
        ("data:\n  real: x\n", "needs a list under dials"),
        ("data:\n  real: x\ngenerator: {kind: files}\n", "needs a list under pools"),
        ("data:\n  real: [x\n", "not valid YAML"),
        ("- a\n", "a study is a mapping"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line_with_place_and_remedy(tmp_path, text, message):
    with pytest.raises(ConfigError) as info:
        read(tmp_path, text)
    assert message in str(info.value)
    assert str(info.value).startswith(str(tmp_path / "study.yaml"))
    assert "\n" not in str(info.value)


def test_missing_study_points_to_init(tmp_path):
    with pytest.raises(ConfigError, match="cuvee init"):
        read_config(tmp_path / "none.yaml")


def test_template_is_a_valid_study_with_the_data_filled_in(tmp_path):
    rows = [{"text": f"t{i}", "target": ["yes: really", "no"][i % 2]} for i in range(40)]
    text = render_template(tmp_path / "my data.csv", Corpus.from_rows(rows), columns={"text": "body", "label": "y"})
    config = StudyConfig.model_validate(yaml.safe_load(text))
    assert config.data.text == "body" and config.data.label == "y"
    assert config.name == "my-data" and config.split.rows_per_label == 5
    assert "yes: really" in text
    assert {d.name for d in config.dials} == {"paraphrase", "sampling"}


MARKS = st.text("a\n: '\"#-[{?", min_size=1, max_size=300)
LABELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | MARKS
WORDS = st.text(min_size=1, max_size=40) | MARKS
SHELL = 'no\ndials: [{name: "subprocess:run", args: "id > PWNED", shell: true}]\n#'


@given(st.lists(LABELS, min_size=2, max_size=9, unique=True), WORDS, WORDS, WORDS)
@example([SHELL, "yes\u2028dials: []"], "a\x85b: c", "\ud800" + "x" * 300, "\x1b]0;\x07.csv")
@example(["\U0010ffff" * 300, "\r", "null", "\u202e"], "<<", "=", "..")
@settings(max_examples=20)
def test_template_holds_what_data_names_whatever_they_hold_and_nothing_else(labels, text, label, file):
    def render(labels, text, label, file):
        rows = [{"text": f"t{i}", "target": y} for i, y in enumerate(labels * 4)]
        return render_template(Path(file), Corpus.from_rows(rows), columns={"text": text, "label": label})

    written = render(labels, text, label, file)
    found, plain = yaml.safe_load(written), yaml.safe_load(render([f"l{i}" for i in range(len(labels))], "a", "b", "c"))
    assert found == plain | {"name": found["name"], "data": {"real": str(Path(file)), "text": text, "label": label}}
    assert all(line.isprintable() for line in written.split("\n")) and isinstance(found["name"], str)
    topics = written.partition("of the training rows\n")[2].partition("\n\n")[0].replace("  #     ", "")
    assert list(yaml.safe_load(topics)) == list(dict.fromkeys(labels))
    found["data"] |= {"text": visible(text), "label": visible(label)}  # a study refuses control characters in them
    config = StudyConfig.model_validate(found)
    assert yaml.safe_load(config_to_yaml(config)) == config.model_dump(mode="json")


@pytest.mark.parametrize("rows", [8, 12, 40, 400])
def test_template_fits_however_few_rows_there_are(tmp_path, rows):
    data = [{"text": f"t{i}", "target": "ab"[i % 2]} for i in range(rows)]
    text = render_template(tmp_path / "d.csv", Corpus.from_rows(data), columns={"text": "text", "label": "label"})
    config = StudyConfig.model_validate(yaml.safe_load(text))
    paraphrase = config.dials[0]
    added = 3 * (config.split.rows_per_label or 0)
    assert paraphrase.sources * (1 + max(paraphrase.levels)) <= added


def test_schema_describes_every_key():
    schema = json.loads(config_schema())
    assert set(schema["properties"]) == set(StudyConfig.model_fields)
    assert schema["additionalProperties"] is False
