import json
import traceback
from urllib.parse import quote

import pytest

from cuvee.config.reading import config_schema, config_to_yaml, make_config, read_config
from cuvee.errors import ConfigError

GOOD = "data:\n  real: x.csv\ndials:\n- name: base_then_refine\n"
ENDPOINT = "generator: {kind: endpoint, base_url: http://h/v1, model: m}\n"
DRAFT = GOOD + "  draft_model: b\n" + ENDPOINT


def read(tmp_path, text: str):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DRAFT.replace(ENDPOINT, ""), "generator.kind embedded has one model; leave it out"),
        (GOOD + "generator: {kind: endpoint, model: m, base_url: []}\n", "give at least one address"),
        (GOOD + "generator: {kind: endpoint, model: m, base_url: [http://a, http://a/]}\n", "each once"),
        (
            GOOD + "generator: {kind: endpoint, model: m, base_url: [http://a, b]}\n",
            "address 2 of base_url is no HTTP address",
        ),
        (GOOD + "generator: {kind: endpoint, model: m, base_url: 3}\n", "no HTTP address"),
        (GOOD + "generator: {kind: endpoint, model: m, base_url: [http://LOCALHOST, http://127.0.0.1]}\n", "each once"),
        (GOOD + "generator: {kind: endpoint, model: m, base_url: 'http://${A_HOST}/v1'}\n", "no HTTP address"),
    ],
)
def test_wrong_generators_are_told_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


KEY = "sk-canary/7f3a+91"
"""A key as it is sent; in addresses it is percent-encoded."""


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://KEY@h:8/v1", "'http://${LLM_TOKEN}@h:8/v1'"),
        ("http://KEY:@h/v1", "'http://${LLM_TOKEN}:@h/v1'"),
        ("http://user:KEY@h/v1", "'http://${LLM_USER}:${LLM_PASSWORD}@h/v1'"),
        ("http://h/v1?subscription=KEY", "'http://h/v1?subscription=${LLM_SUBSCRIPTION}'"),
        ("http://h/v1?api-version=3&code=KEY#KEY", "'http://h/v1?api-version=3&code=${LLM_CODE}'"),
        ("http://h/v1?KEY", "'http://h/v1?${LLM_QUERY}'"),
        ("http://h/KEY/v1", "'http://h/${A_KEY}/v1'"),
        ("http://h/v1-KEY/", "'http://h/${A_KEY}'"),
        ("KEY@h:8000/v1", "no HTTP address"),
        ("h/v1?code=KEY", "no HTTP address"),
        ("KEY", "no HTTP address"),
        ("http://sk/canary@h/v1", "no HTTP address"),
        ("http://KEY@[h/v1", "no HTTP address"),
        ({"KEY": "KEY"}, "no HTTP address"),
    ],
)
def test_an_address_that_holds_a_key_is_refused_without_showing_it(tmp_path, monkeypatch, url, remedy):
    monkeypatch.setenv("A_KEY", KEY)
    spelled = quote(KEY, safe="")
    generator = {"kind": "endpoint", "model": "m", "api_key_env": "A_KEY", "base_url": url}
    given = {"data": {"real": "x.csv"}, "dials": [{"name": "sampling"}]}
    given = {**given, "generator": json.loads(json.dumps(generator).replace("KEY", spelled))}
    given["generator"]["api_key_env"] = "A_KEY"
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, json.dumps(given))
    told = "".join(traceback.format_exception(caught.value))
    assert remedy in told and KEY not in told and spelled not in told
    if not remedy.startswith("no"):  # the remedy is one
        given["generator"]["base_url"] = remedy.strip("'")
        config = read(tmp_path, json.dumps(given))
        assert KEY not in config_to_yaml(config) and spelled not in config_to_yaml(config)


def test_a_dial_names_a_draft_model(tmp_path):
    config = read(tmp_path, DRAFT)
    assert config.draft_models == ("b",)
    assert read(tmp_path, config_to_yaml(config)) == make_config(config.model_dump(mode="json")) == config
    inner = "- name: combined\n  first: {name: sampling}\n  second: {name: base_then_refine, draft_model: c}\n"
    assert read(tmp_path, GOOD.replace("- name: base_then_refine\n", inner) + ENDPOINT).draft_models == ("c",)
    assert "draft_model" in config_schema()


def test_model_files_are_relative_to_the_file_and_names_on_the_hub_stay(tmp_path):
    (tmp_path / "local-model").mkdir()
    text = GOOD + "generator:\n  kind: transformers\n"
    for given, wanted in [
        ("local-model", str(tmp_path / "local-model")),
        ("hf:local-model", str(tmp_path / "local-model")),
        ("./missing", str(tmp_path / "missing")),
        ("m.gguf", str(tmp_path / "m.gguf")),
        ("org/name@main", "org/name@main"),
        ("hf:org/name", "hf:org/name"),
    ]:
        generator = read(tmp_path, text + f"  model: {given}\n").generator
        assert generator.model == wanted
