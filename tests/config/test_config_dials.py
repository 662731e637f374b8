"""What study.yaml may say about topics, attributes and targets."""

import pytest
import yaml

from cuvee.config.dials import TargetConfig, parse_target
from cuvee.config.reading import config_to_yaml, make_config, read_config
from cuvee.errors import ConfigError
from cuvee.measure import METRICS

NESTED = {"sport": {"tennis": ["Wimbledon", "umpires"], "golf": []}, "topics": {"a": {"b": ["c"]}}}


def config(dial):
    return make_config({"data": {"real": "x.csv"}, "dials": [dial]})


@pytest.mark.parametrize(
    "dial",
    [
        {"name": "topics", "levels": [1, 2], "topics": "llm"},
        {"name": "topics", "levels": [1, 12], "topics": "llm"},
        {"name": "topics", "levels": [1], "topics": ["home", "work"]},
        {"name": "topics", "levels": [1], "topics": {"sport": ["tennis"]}},
        {"name": "topics", "levels": [1], "topics": NESTED},
        {"name": "attributes", "levels": [4], "dimensions": "llm", "count": 2, "values": 2},
        {"name": "sampling", "target": {"metric": "vendi", "value": 12.5, "rows": 100}},
        {"name": "sampling", "target": {"metric": "dcscore", "value": 0.5, "tolerance": 1}},
    ],
    ids=str,
)
def test_a_dial_reads_back_as_it_was_written(dial):
    found = config(dial)
    assert make_config(yaml.safe_load(config_to_yaml(found))) == found
    written = found.dials[0].model_dump(mode="json")
    assert all(written[key] == value for key, value in dial.items() if key != "target")


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ({"name": "topics", "topics": "lmm"}, "topics is 'lmm'; give data, llm"),
        ({"name": "topics", "topics": {"sport": "golf"}}, "topics.sport is 'golf'; give a list"),
        ({"name": "topics", "topics": {"sport": {"golf": [1]}}}, "topics.sport.golf has the topic 1, which is no text"),
        ({"name": "topics", "topics": {1: ["a"]}}, "topics has the topic 1, which is no text"),
        ({"name": "attributes", "dimensions": "lm"}, "give llm, or map each attribute"),
        ({"name": "attributes", "dimensions": {"a": ["x"]}, "values": 2}, "given by hand"),
        ({"name": "sampling", "target": {"metric": "vendy", "value": 1}}, "target.metric: .*did you mean 'vendi'"),
        ({"name": "sampling", "target": {"metric": "mmd", "value": 1}}, "'mmd' is no diversity"),
        ({"name": "sampling", "target": {"metric": "mean_words", "value": 1}}, "no diversity"),
        ({"name": "sampling", "target": {"metric": "vendi"}}, "target.value.* is missing"),
        ({"name": "sampling", "target": {"metrik": "vendi", "value": 1}}, "target.metrik.*did you mean 'metric'"),
        (
            {"name": "combined", "first": {"name": "sampling", "draws": 1}, "second": {"name": "taboo"}},
            "first.draws has no meaning",
        ),
        (
            {
                "name": "combined", "first": {"name": "sampling"},
                "second": {"name": "taboo", "target": {"metric": "vendi", "value": 1}},
            },
            "second.target has no meaning",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_in_dials_are_told(dial, message):
    with pytest.raises(ConfigError, match=message) as info:
        config(dial)
    assert "\n" not in str(info.value)


def test_a_mistake_in_topics_is_told_with_key_and_line(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("data: {real: x}\ndials:\n- name: topics\n  topics:\n    sport: golf\n")
    with pytest.raises(ConfigError, match=r"line 4: dials.0.topics: topics.sport is 'golf'"):
        read_config(path)


def test_short_names_are_those_of_the_papers_and_every_diversity_may_be_a_target():
    assert TargetConfig(metric="vendi", value=1).metric == "vendi_q1"
    assert TargetConfig(metric="dcscore", value=1).metric == "dcscore_tau1"
    assert TargetConfig(metric="mine:metric", value=1).metric == "mine:metric"
    allowed = []
    for metric in METRICS.values():
        try:
            TargetConfig(metric=metric.name, value=1)
        except ValueError:
            assert metric.family in ("shift", "quality") or metric.name in ("mean_words", "ending_rate")
        else:
            allowed.append(metric.name)
    assert {"vendi_q1", "dcscore_tau1", "self_bleu", "distinct_1"} <= set(allowed)


def test_the_tolerance_is_5_percent_of_the_value_where_none_is_given():
    assert TargetConfig(metric="vendi", value=-20).target().tolerance == pytest.approx(1)
    assert TargetConfig(metric="vendi", value=20, tolerance=0.0).target().tolerance == 0


def test_targets_of_the_command_line():
    assert parse_target("vendi=12", tolerance=1) == TargetConfig(metric="vendi", value=12, tolerance=1)
    for text, said in (
        ("vendi", "METRIC=VALUE"), ("vendi=much", "METRIC=VALUE"), ("vendy=1", "did you mean 'vendi'"),
        ("vendi=nan", "finite"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            parse_target(text)
