"""Trained models with their cards, and their upload to a hub that a real HTTP server on loopback plays."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from command_line import call, refused
from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import ConfigError, InputError
from cuvee.hub import push_folder
from cuvee.report import CardFacts, Licences, Reproduction, render_model_card
from cuvee.train import TrainSettings, load_predictor, train_model
from local_hub import Hub, serve

pytest.importorskip("huggingface_hub")
TOKEN, REPO = "hf_secretSECRETsecret0123456789", "someone/tiny-model"
ROWS = Corpus.from_rows(
    [{"text": f"goal match {i}" if i % 2 else f"bank loan {i}", "target": "ab"[i % 2]} for i in range(8)]
)
MADE = Corpus.from_rows(
    [{"text": f"goal {i}", "target": "b", "generator": "tiny|llm"} for i in range(2)], origin="synthetic"
)
PLAIN = CardFacts(name="m", version="1")


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    from huggingface_hub import close_session

    with serve(Hub(repo=REPO, kind="models")) as running:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.port}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
        close_session()


@pytest.fixture
def predictor():
    return train_model(ROWS.joined(MADE), settings=TrainSettings(l2=5.0), encoder=HashingEncoder())


@pytest.fixture
def folder(tmp_path, predictor):
    predictor.save(tmp_path / "m")
    card = render_model_card(PLAIN, ROWS.joined(MADE), settings_of(predictor), base="hashing")
    (tmp_path / "m" / "README.md").write_text(card, encoding="utf-8")
    return tmp_path / "m"


def settings_of(predictor) -> dict[str, object]:
    return {f.name: getattr(predictor.settings, f.name) for f in dataclasses.fields(predictor.settings)}


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


# --- the card ---
def test_a_card_says_what_was_trained_on_what_and_how(predictor):
    facts = CardFacts(
        name="news | <b>",
        version="9.9",
        languages=["en"],
        licences=Licences(blend="apache-2.0"),
        reproduction=Reproduction(command="cuvee train blend.parquet"),
    )
    card = render_model_card(facts, ROWS.joined(MADE), settings_of(predictor), base="minilm")
    assert front_matter(card) == {
        "library_name": "cuvee", "pipeline_tag": "text-classification", "language": ["en"], "license": "apache-2.0",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2", "tags": ["cuvee"],
    }  # fmt: skip
    for said in (
        "10 rows: 8 real, 2 synthetic (share 0.200 as realised)", "| b | 4 | 2 |", "tiny\\|llm", "| loss | ce |",
        "| l2 | 5.0 |", "cuvee train blend.parquet", "this model: apache-2.0",
        "# news \\| &lt;b>", "Cuvée 9.9", "trainer `probe` and loss `ce`",
    ):  # fmt: skip
        assert said in card, said


def test_a_card_claims_nothing_it_was_not_told(predictor, tmp_path):
    card = render_model_card(PLAIN, ROWS, settings_of(predictor), base=str(tmp_path))
    front = front_matter(card)
    assert (front["license"], front["license_name"]) == ("other", "unstated")
    assert "base_model" not in front and str(tmp_path) not in card
    assert "State `license` above" in card
    assert "written by" not in card and "language" not in front


# --- the upload ---
def test_a_model_arrives_and_predicts_the_same(hub, folder, predictor, tmp_path):
    assert push_folder(folder, REPO, "model") == f"http://127.0.0.1:{hub.port}/{REPO}"
    assert hub.visibility == {REPO: "private"} and hub.tokens == {f"Bearer {TOKEN}"}
    assert set(hub.files) == {"README.md", "predictor.json", "probe.npz"}
    for name, content in hub.files.items():
        (tmp_path / "down").mkdir(exist_ok=True)
        (tmp_path / "down" / name).write_bytes(content)
    again = load_predictor(tmp_path / "down", encoder=HashingEncoder())
    assert np.array_equal(again.predict_proba(ROWS.texts), predictor.predict_proba(ROWS.texts))


def test_files_of_the_model_arrive_and_hidden_and_foreign_ones_do_not(hub, folder):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / ".cache").write_text("x")
    (folder / ".secret").write_text("x")
    (folder / "notes.txt").write_text("mine")
    (folder / "model" / "link").symlink_to("/etc/hostname")
    push_folder(folder, REPO, "model", private=False)
    assert set(hub.files) == {"README.md", "predictor.json", "probe.npz", "model/config.json"}
    assert hub.visibility == {REPO: "public"}


def test_only_models_of_ours_are_pushed(hub, folder, tmp_path, monkeypatch):
    (folder / "README.md").write_text("# mine", encoding="utf-8")
    for wrong in (folder, tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="not a model with the card"):
            push_folder(wrong, REPO, "model")
    monkeypatch.delenv("HF_TOKEN")
    (folder / "README.md").write_text("---\ntags: [cuvee]\n---\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="HF_TOKEN is not set"):
        push_folder(folder, REPO, "model")
    assert hub.asked == []


# --- the command ---
@pytest.fixture
def blend(tmp_path) -> Path:
    path = tmp_path / "blend.jsonl"
    rows = zip(ROWS.texts, ROWS.targets, strict=True)
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8")
    return path


def train(blend, *more):
    return ["train", blend, "--encoder", "hashing", "--out", blend.parent / "made", *more]


def test_train_pushes_when_asked_and_else_asks_nobody(hub, blend, capsys):
    code, out, err = call(capsys, *train(blend))
    assert (code, hub.asked) == (0, []) and "pushed" not in out + err
    assert front_matter((blend.parent / "made" / "README.md").read_text())["license"] == "other"
    code, out, err = call(
        capsys, *train(blend, "--push", REPO, "--licence", "apache-2.0", "--language", "en", "--json")
    )
    assert code == 0, err
    assert json.loads(out)["pushed"] == f"http://127.0.0.1:{hub.port}/{REPO}"
    card = hub.files["README.md"].decode()
    assert front_matter(card)["license"] == "apache-2.0" and "--push" in card and TOKEN not in card
    assert hub.visibility == {REPO: "private"}
    assert f"pushed to http://127.0.0.1:{hub.port}/{REPO}" in " ".join(
        call(capsys, *train(blend, "--push", REPO))[1].split()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push", "nameless"], "repo_id is 'nameless'; give NAMESPACE/NAME"),
        (["--public"], "--public has no effect here: it goes with --push"),
        (["--licence", "MIT License"], "--licence: 'MIT License' is no licence identifier"),
        (["--language", "English"], "--language is 'English'; give ISO 639 codes"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_training(hub, blend, capsys, options, message):
    assert message in refused(capsys, *train(blend, *options))
    assert not (blend.parent / "made").exists() and hub.asked == []


def test_a_readme_of_ones_own_is_not_lost(blend, capsys):
    (blend.parent / "made").mkdir()
    (blend.parent / "made" / "README.md").write_text("# mine", encoding="utf-8")
    assert "not a card that Cuvée wrote" in refused(capsys, *train(blend))
    assert [p.name for p in (blend.parent / "made").iterdir()] == ["README.md"]
