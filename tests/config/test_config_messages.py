"""What a wrong study.yaml is told, in every section that is one of several."""

import pytest

from cuvee.config.reading import make_config, read_config
from cuvee.errors import ConfigError

DIALS = "data:\n  real: x.csv\ndials:\n"
FILES = "data: {real: x.csv}\ngenerator: {kind: files}\npools:\n- {dial: d, level: a, path: p}\n"
LOCAL = "data: {real: x.csv}\ndials:\n- name: sampling\ngenerator:\n"


def told(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as info:
        read_config(path)
    message = str(info.value)
    assert "\n" not in message and message.startswith(f"{path}, line ")
    return message.removeprefix(f"{path}, ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILES + "filters:\n- name: dedupe\n  nea: 0.9\n", "line 7: unknown key 'filters.0.nea'; did you mean 'near'?"),
        (FILES + "filters:\n- {name: leak}\n- name: fewer-per-cluster\n  limits: 3\n", "'limit'?"),
        (FILES + "filters:\n- name: agreement\n  tp: 0.5\n", "unknown key 'filters.0.tp'; did you mean 'top'?"),
        (FILES + "filters:\n- name: mine:function\n  limit: 3\n", "unknown key 'filters.0.limit'; valid: name"),
        (FILES + "filters:\n- name: leek\n", "filters.0.name is 'leek'; did you mean 'leak'?"),
        (FILES + "filters:\n- name: dedupe\n  near: 2\n", "line 7: filters.0.near: input should be less than or equal"),
        (FILES.replace("path: p", "path: p, lable: x"), "unknown key 'pools.0.lable'; did you mean 'label'?"),
        (FILES.replace("level: a", "select: {level: 3}"), "'pools.0.select.level'; did you mean 'levels'?"),
        (DIALS + "- name: topics\n  topics: data\n  topcs: data\n", "'dials.0.topcs'; did you mean 'topics'?"),
        (DIALS + "- name: topics\n  topics: dta\n", "line 5: dials.0.topics: topics is 'dta'"),
        (DIALS + "- name: examples\n  shwn: 3\n", "line 5: unknown key 'dials.0.shwn'; did you mean 'shown'?"),
        (DIALS + "- name: base_then_refine\n  draft: near\n", "dials.0.draft is 'near'; valid: completions, chat"),
        (DIALS + "- name: sampling\n  levels:\n  - {temprature: 1}\n", "'dials.0.levels.0.temprature'; did"),
        (DIALS + "- name: taboo\n  levels: 3\n", "line 5: dials.0.levels: input should be a list, such as [a, b] (got"),
        (DIALS + "- name: combined\n  first: {name: taboo, word: 3}\n  second: {name: sampling}\n",
         "line 5: unknown key 'dials.0.first.word'; did you mean 'words'?"),
        (DIALS + "- name: sampling\n  target: {metric: vendi, valu: 3}\n", "'dials.0.target.valu'; did you"),
        (LOCAL + "  kind: transformers\n  model: m\n  devise: cpu\n", "'generator.devise'; did you mean 'device'?"),
        (LOCAL + "  kind: endpoint\n  base_url: http://x\n  model: m\n  budget: {request: 3}\n",
         "unknown key 'generator.budget.request'; did you mean 'requests'?"),
        (LOCAL + "  kind: files\n  model: m\n", "unknown key 'generator.model'; valid: kind"),
        ("task: [a]\n" + FILES, "line 1: task is \"['a']\"; valid: classification, generation, retrieval"),
        (DIALS + "- name: sampling\ntrack: {uri: x}\n", "unknown key 'track.uri'; "),
        (DIALS + "- name: sampling\ntrain:\n  check: {step: 3}\n", "'train.check.step'; did you mean 'steps'?"),
    ],
)  # fmt: skip
def test_unknown_keys_and_values_name_their_own_section(tmp_path, text, message):
    assert message in told(tmp_path, text)


def test_a_key_with_the_name_of_a_section_is_shown():
    for values, says in (
        ({"name": "topics", "topics": ["a"], "levels": ["x"]}, "dials.0.levels.0"),
        ({"name": "sampling", "levels": ["hot"]}, "config: dials.0.levels.0: input should be a valid number"),
        ({"name": "examples", "examples": 3}, "unknown key 'dials.0.examples'"),
    ):
        with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
            make_config({"data": {"real": "x.csv"}, "dials": [values]})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "retrieval", "filters": [{"name": "leak"}, {"name": "agreement", "top": 0.5}]},
         "filter 'agreement' is for the task classification, this one is retrieval"),
        ({"task": "generation", "data": {"real": "x", "context": "c"}, "filters": [{"name": "leak"},
         {"name": "dedupe", "near": 0.9}]}, "dedupe.near compares texts without their contexts"),
        ({"pools": [{"dial": "d", "level": "a", "path": "p", "context": "c"}]}, "pools.0.context is for the task gen"),
        ({"filters": [{"name": "dedupe"}]}, "filters must hold leak"),
        ({"mix": {"format": "messages"}}, "mix.format is for the task generation, this one is classification"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_the_task_of_the_pools_is_refused(changes, says):
    base = {"data": {"real": "x"}, "generator": {"kind": "files"}, "pools": [{"dial": "d", "level": "a", "path": "p"}]}
    with pytest.raises(ConfigError, match=says):
        make_config({**base, **changes})


def test_a_column_of_sources_needs_sources():
    base = {"data": {"real": "x"}, "task": "retrieval", "dials": [{"name": "sampling"}]}
    with pytest.raises(ConfigError, match="sources_text names a column of the file sources, and there is none"):
        make_config({**base, "writing": {"sources_text": "passage"}})


@pytest.mark.parametrize(
    "name", ["..", ".", "...", "", "a/b", "../x", "a\\b", "a\0b", "a\nb", "a\n", "a\x1bb", "x" * 3000]
)
def test_a_name_that_is_no_folder_of_its_own_is_refused(name):
    with pytest.raises(ConfigError, match=r"config: name is .*it names the run folder") as caught:
        make_config({"data": {"real": "x"}, "dials": [{"name": "sampling"}], "name": name})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
