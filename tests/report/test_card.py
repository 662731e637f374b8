"""The dataset card: front matter that the hub takes, tables that add up, no section without content."""

import dataclasses
import re

import pytest
import yaml

from cuvee.characters import to_markdown
from cuvee.corpus import Corpus
from cuvee.hub import write_dataset
from cuvee.mix.blend import count_composition
from cuvee.records import Advice, Composition, Estimate, Level, Measurement, MetricNote
from cuvee.report import CardFacts, Licences, Reproduction, SyntheticPart, render_card

HOSTILE = 'a|b"\n<img src=x>: [1]\\ --- # {'


def corpus(task="classification"):
    real = Corpus.from_rows([{"text": f"seen {i}", "target": "yes" if i % 3 else HOSTILE} for i in range(8)], task=task)
    made = [{"text": f"made up {i}", "target": "yes", "seed_ids": ["x", "y"]} for i in range(4)]
    return real.joined(Corpus.from_rows(made, origin="synthetic", task=task))


MADE = count_composition(corpus())
ADVICE = Advice(
    decision="use", sentence="Blend a < b.", best=None, not_distinguished=(), cells=(), shapes=(), checks=(),
    confirmation=None, more_draws=None, scope="", failures=0,
)  # fmt: skip
MEASURED = Measurement(
    name="topics=4", fingerprint="f" * 64, against="a" * 64, n=40, encoder="minilm", encoder_hash="h" * 64, seed=3,
    values={
        "vendi_q1": Estimate(value=12.345, low=11.0, high=13.5, n=40),
        "mmd": Estimate(value=0.02, n=40, p_value=0.013),
    },
)  # fmt: skip
NOTES = {
    "vendi_q1": MetricNote(family="diversity", description="effective number of meanings", better="higher: wider"),
    "mmd": MetricNote(family="shift", description="distance", better="lower: nearer"),
}
FACTS = CardFacts(
    name=f"Demo {HOSTILE}",
    version="9.9",
    languages=["en", "pt-BR"],
    licences=Licences(blend="cc-by-4.0", real="CC BY 4.0 of X", synthetic="Apache-2.0"),
    reproduction=Reproduction(command="cuvee mix a.csv b.csv", seed=5, fingerprints={"real rows": "r" * 64}),
)
PLAIN = CardFacts(name="x", version="1")
FULL = {
    "facts": FACTS,
    "composition": MADE,
    "advice": ADVICE,
    "synthetic": SyntheticPart(
        writer="embedded SmolLM2-135M-Instruct", sampling={"temperature": 0.7, "top_p": 0.95},
        levels=(Level(dial="topics", name="4", rank=0),), left_out={"duplicate": 7, "leak": 2}, kept=31,
    ),
    "measurement": MEASURED,
    "notes": NOTES,
}  # fmt: skip


def front_matter(card):
    return pytest.importorskip("huggingface_hub").DatasetCard(card).data.to_dict()


def sections(card):
    return re.findall(r"^## (.*)$", card, flags=re.MULTILINE)


def table(card, heading):
    body = card.split(f"{heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("- ")]


def test_the_hub_reads_the_front_matter():
    found = front_matter(render_card(**FULL))
    assert found == {
        "pretty_name": f"Demo {HOSTILE} blend",
        "language": ["en", "pt-BR"],
        "license": "cc-by-4.0",
        "task_categories": ["text-classification"],
        "tags": ["synthetic", "cuvee"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    }


@pytest.mark.parametrize(
    ("task", "category"),
    [("classification", "text-classification"), ("generation", "text-generation"), ("retrieval", "text-retrieval")],
)
def test_each_task_has_its_category(task, category):
    card = render_card(dataclasses.replace(PLAIN, task=task), count_composition(corpus(task)))
    assert front_matter(card)["task_categories"] == [category]
    assert ("Labels" in sections(card)) == (task == "classification")


def test_a_blend_of_plain_files_has_a_card_without_empty_sections():
    card = render_card(PLAIN, MADE)
    assert sections(card) == ["Composition", "Labels", "Licence", "How to reproduce"]
    found = front_matter(card)
    assert (found["license"], found["license_name"]) == ("other", "unstated") and "language" not in found
    assert "Verdict" not in card and "None" not in card and "cuvee run" not in card
    for part in card.split("\n## ")[1:]:
        assert len(part.strip().splitlines()) > 1


def test_real_rows_alone_are_not_called_synthetic():
    real = count_composition(corpus().take(range(8)))
    card = render_card(PLAIN, real, synthetic=SyntheticPart(writer="someone"), advice=ADVICE)
    assert front_matter(card)["tags"] == ["cuvee"]
    assert "synthetic rows:" not in card and "Synthetic rows" not in sections(card) and "someone" not in card


def test_every_fact_stands_in_the_card():
    card = render_card(**FULL)
    assert sections(card) == [
        "Composition", "Labels", "Synthetic rows", "Filters", "Measured: topics=4", "Licence", "How to reproduce",
    ]  # fmt: skip
    said = [
        "**Verdict: use.** Blend a < b.", "- written by: embedded SmolLM2-135M-Instruct",
        "- sampling, unless the level says otherwise: temperature 0.7, top_p 0.95",
        "- dials and levels: topics=4", "- real rows: CC BY 4.0 of X",
        "- synthetic rows: Apache-2.0", "- this dataset: cc-by-4.0", "cuvee mix a.csv b.csv", "- seed 5",
        f"- fingerprint of real rows: `{'r' * 64}`", "- Cuvée 9.9", "### diversity", "### shift",
    ]  # fmt: skip
    assert [text for text in said if text not in card] == []
    assert "| `vendi_q1` | 12.35 | 11 to 13.5 |  | higher: wider |" in card
    assert "| `mmd` | 0.02 |  | 0.013 | lower: nearer |" in card


def test_tables_add_up():
    card = render_card(**FULL)
    rows = {r[0]: [int(n) if n.isdigit() else n for n in r[1:]] for r in table(card, "## Composition")[1:]}
    assert rows["real"][0] + rows["synthetic"][0] == rows["all"][0] == 12
    assert rows["real"][-1] + rows["synthetic"][-1] == rows["all"][-1] == MADE.words == 8 * 2 + 4 * 3
    assert rows["real"][1:5] == ["0.667", 8, 1, 8]
    labels = table(card, "## Labels")[1:]
    assert sum(int(r[3]) for r in labels) == 12 and all(int(r[1]) + int(r[2]) == int(r[3]) for r in labels)
    (_, before), *left_out, (_, kept) = table(card, "## Filters")[1:]
    assert int(before) == 40 == sum(int(n) for _, n in left_out) + int(kept)


def test_nothing_a_user_names_breaks_the_page():
    card = render_card(**FULL | {"synthetic": SyntheticPart(writer=HOSTILE)})
    assert "<img" not in card.split("---\n", 2)[2]
    assert all(len(row) == 4 for row in table(card, "## Labels"))
    how = Reproduction(command="echo ```\n## no heading")
    fenced = render_card(dataclasses.replace(PLAIN, reproduction=how), MADE)
    assert "````sh\necho ```\n## no heading\n````" in fenced


@pytest.mark.parametrize("wrong", ["", "CC BY", "MIT", "a\nb"])
def test_a_licence_is_an_identifier(wrong):
    with pytest.raises(ValueError, match="no licence identifier of the hub"):
        Licences(blend=wrong)


def test_a_language_is_a_code():
    with pytest.raises(ValueError, match="languages has 'English'"):
        CardFacts(name="x", version="1", languages=["English"])


def test_a_licence_of_ones_own_has_a_name():
    card = render_card(dataclasses.replace(PLAIN, licences=Licences(name="my-terms")), MADE)
    found = front_matter(card)
    assert (found["license"], found["license_name"]) == ("other", "my-terms")
    assert "- this dataset: my-terms" in card and "State `license`" not in card


def test_an_older_composition_has_a_card_too():
    older = Composition(
        share=0.5, real_rows=2, synthetic_rows=2, unique_rows=4, most_repeats=1, label_counts={"a": (2, 2)}
    )
    card = render_card(PLAIN, older)
    assert "words" not in card and "| all | 4 |  | 4 | 1 |" in card


@pytest.mark.slow
def test_datasets_opens_the_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_dataset(tmp_path / "blend", corpus(), render_card(**FULL))
    found = datasets.load_dataset(str(tmp_path / "blend"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"] and found["train"]["id"] == corpus().ids
    assert found["train"]["target"] == corpus().targets and found["train"]["seed_ids"][-1] == ["x", "y"]


def test_the_front_matter_is_one_yaml_document():
    assert len(list(yaml.safe_load_all(render_card(**FULL).split("---\n", 2)[1]))) == 1


def test_weights_are_said_where_there_are_any():
    assert "Weights" not in render_card(PLAIN, MADE)
    card = render_card(PLAIN, MADE, weights="all count as 3 of equal weight")
    assert "**Weights.** all count as 3 of equal weight." in card


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2.8 points [-1.0, 6.5], p < 0.05, A & B", "2.8 points [-1.0, 6.5], p < 0.05, A & B"),
        ("[x](http://y) ![x][y] [x]: y", "[x\\](http://y) ![x\\][y] [x\\]: y"),
        ("<b> </b> <!-- &lt; &#60; a|b \\", "&lt;b> &lt;/b> &lt;!-- &amp;lt; &amp;#60; a\\|b \\\\"),
    ],
)
def test_only_what_would_be_markup_is_escaped(text, shown):
    assert to_markdown(text) == shown
