"""Losses where there are no labels: their weights are what the checker's log probabilities make them."""

import dataclasses

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.train import TrainSettings, check_fit, needs_real_rows
from cuvee.train.checkers import PASSES, TUNED_CANDIDATES
from cuvee.train.losses import build_loss
from cuvee.train.model import tuned_settings
from cuvee.train.weighting import RowScores, TrainingRows

REAL, MADE = 12, 10
MARKS = np.arange(REAL + MADE) >= REAL


def rows_of(checker, task="generation", groups=None):
    rows = [
        {
            "text": f"prompt {i}", "target": f"{i}", "origin": "synthetic" if mark else "real",
            **({"group": groups[i]} if groups else {}),
        }
        for i, mark in enumerate(MARKS)
    ]  # fmt: skip
    corpus = Corpus.from_rows(rows, task=task)
    return TrainingRows(corpus=corpus, synthetic=MARKS, encode=None, seed=0, checker=checker)


class Table:
    """A checker that knows: real rows make a row as probable as its number says, synthetic ones all the same."""

    def __init__(self, unknown=()):
        self.unknown, self.asked = unknown, []

    def __call__(self, corpus, scored, *, weights, passes, seed):
        self.asked.append((corpus, scored, weights, passes, seed))
        assert not set(corpus.ids) & set(scored.ids)  # nobody checks what it was tuned on
        real = set(corpus.origins) == {"real"}
        log_p = np.array([-0.1 * int(t) if real else -1.5 for t in scored.targets])
        log_p[[t in self.unknown for t in scored.targets]] = np.nan
        return RowScores(log_p=log_p, agrees=~(log_p < np.nanmedian(log_p)))


def prepare(name, checker, **settings):
    return build_loss(TrainSettings(trainer="causal", loss=name, **settings)).prepare(rows_of(checker))


NUMBERS = np.arange(REAL, REAL + MADE)


def test_imp_divides_mean_probabilities_of_tokens_and_clips():
    checker = Table(unknown=("15",))
    expected = np.minimum(np.exp(-0.1 * NUMBERS + 1.5), 1.2)
    expected[3] = 1.0  # a row that does not fit is no better and no worse
    np.testing.assert_allclose(prepare("imp", checker, clip=1.2).weights, [*np.ones(REAL), *expected])
    tuned_on = [set(corpus.origins) for corpus, *_ in checker.asked]
    assert tuned_on == [{"real"}, {"synthetic"}, {"synthetic"}]
    halves = [set(scored.ids) for _, scored, *_ in checker.asked[1:]]
    assert len(halves[0]) == len(halves[1]) == MADE / 2 and not halves[0] & halves[1]
    assert {passes for *_, passes, _ in checker.asked} == {PASSES}


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_dimp_divides_by_the_models_own_and_the_batch_mean(gamma):
    loss = prepare("dimp", Table(), gamma=gamma)
    rows = np.array([0, 12, 17, 21])
    log_p = np.array([-1.0, -1.1, -2.0, -1.9])
    weights = np.exp(gamma * (np.array([0.0, -1.2, -1.7, -2.1]) - log_p))
    weights[0] = 1.0  # real
    np.testing.assert_allclose(loss.slopes(rows, log_p), -weights / weights.mean())


def test_the_filter_keeps_what_the_checker_agrees_with():
    kept = prepare("agreement_filter", Table(unknown=("21",))).kept
    assert kept[:REAL].all()
    assert np.array_equal(np.flatnonzero(kept[REAL:]), [0, 1, 2, 3, 4, 9])


class Preferring:
    """A checker whose held-out losses are least at one weight of the synthetic rows."""

    def __init__(self, best):
        self.best, self.weights, self.settings = best, [], set()

    def __call__(self, corpus, scored, *, weights, passes, seed):
        made = np.array([o == "synthetic" for o in corpus.origins])
        assert set(scored.origins) == {"real"} and made.sum() == MADE
        assert (weights[~made] == 1).all()
        self.weights.append(float(weights[made][0]))
        self.settings.add((passes, seed, *scored.ids))
        noise = 0.01 * np.arange(len(scored))
        return RowScores(log_p=-abs(self.weights[-1] - self.best) - noise, agrees=np.ones(len(scored), dtype=bool))


@pytest.mark.parametrize("best", TUNED_CANDIDATES)
def test_the_weight_of_least_loss_on_held_out_real_rows_is_chosen(best):
    checker = Preferring(best)
    assert prepare("source_weight", checker).source_weight == best
    assert checker.weights == list(TUNED_CANDIDATES)
    assert len(checker.settings) == 1  # the same rows, steps and seed for each
    assert next(iter(checker.settings))[0] is None


def test_a_given_weight_asks_no_checker():
    checker = Table()
    assert prepare("source_weight", checker, source_weight=0.3).source_weight == 0.3
    assert checker.asked == []


def test_too_few_rows_or_groups_are_told():
    one = ["a"] * (REAL + MADE)
    with pytest.raises(TrainingError, match="the 12 real rows are too few to choose source_weight"):
        build_loss(TrainSettings(loss="source_weight")).prepare(rows_of(Table(), groups=one))
    with pytest.raises(TrainingError, match="by synthetic rows of other groups, and there is one group"):
        build_loss(TrainSettings(loss="imp")).prepare(rows_of(Table(), groups=one))


def test_a_tuning_takes_half_the_steps_or_its_passes():
    settings = TrainSettings(
        trainer="causal", loss="imp", steps=60, checkpoint_every=3, patience=1, evaluate_every=2, lora_rank=4
    )
    tuned = tuned_settings(settings, rows=20, passes=3, seed=5)
    assert (tuned.steps, tuned.seed, tuned.loss, tuned.lora_rank) == (8, 5, "ce", 4)
    assert (tuned.checkpoint_every, tuned.patience, tuned.evaluate_every) == (None, None, None)
    assert tuned_settings(settings, rows=999, passes=3, seed=5).steps == 30
    assert tuned_settings(settings, rows=20, passes=None, seed=5).steps == 30
    assert tuned_settings(dataclasses.replace(settings, steps=1), rows=1, passes=3, seed=5).steps == 1


# --- what fits together, asked before anything is spent ---
@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        (TrainSettings(lora_rank=4), "classification", "lora_rank is 4, but trainer 'probe' has no lora_rank"),
        (TrainSettings(trainer="encoder", packing=True), "classification", "trainer 'encoder' has no packing"),
        (TrainSettings(trainer="causal"), "classification", "'causal' is not for task 'classification'; set trainer"),
        (TrainSettings(trainer="retriever", batch_size=1), "retrieval", "negatives are the other rows"),
        (TrainSettings(trainer="retriever", loss="dimp"), "retrieval", "a retriever has none; set loss"),
        (TrainSettings(trainer="causal", lora_alpha=2.0), "generation", "there are no adapters; set lora_rank"),
        (TrainSettings(trainer="encoder", evaluate_every=2), "classification", "it is for patience alone"),
        (TrainSettings(loss="ce", gamma=2.0), "classification", "loss 'ce' has none; set loss: dimp"),
        (TrainSettings(trainer="prope"), "classification", "did you mean 'probe'"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_spent(settings, task, message):
    with pytest.raises(ConfigError, match=message):
        check_fit(settings, task)


def test_what_fits_passes():
    check_fit(TrainSettings(), "classification")
    check_fit(TrainSettings(trainer="causal", loss="imp", packing=True, lora_rank=2, lora_alpha=4.0), "generation")
    check_fit(TrainSettings(trainer="retriever", loss="agreement_filter", temperature=0.1), "retrieval")


def test_which_losses_need_real_rows():
    needing = {"imp", "dimp", "source_weight", "agreement_filter", "checker_alone"}
    names = ["ce", "curriculum", "gce", "sce", "tce", *needing]
    assert {name for name in names if needs_real_rows(TrainSettings(loss=name))} == needing
    assert not needs_real_rows(TrainSettings(loss="source_weight", source_weight=0.5))
    assert needs_real_rows(TrainSettings(loss="source_weight", source_weight=0.0))


# --- losses and trainers of the user's own ---
OWN = """
import numpy as np
from cuvee.probe import WeightedRows

class Refuses:
    def __init__(self, settings): raise KeyError("gone")
    def prepare(self, rows): pass

class Breaks:
    def __init__(self, settings): pass
    def prepare(self, rows): return rows.nothing

class Late(WeightedRows):
    def __init__(self, settings): super().__init__(np.ones(6))
    def prepare(self, rows): return self
    def slopes(self, rows, log_p): return 1 / 0

class Short(Late):
    def slopes(self, rows, log_p): return np.ones(1)

class Halves(Late):
    def prepare(self, rows): return WeightedRows(np.ones(3))

def train(training): raise RuntimeError("two\\nlines")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loss_room:Refuses", "loss 'loss_room:Refuses' failed .KeyError: 'gone'.; correct it"),
        ("loss_room:Breaks", "loss 'loss_room:Breaks' failed .AttributeError: 'TrainingRows' object has no attribute"),
        ("loss_room:Late", "loss 'loss_room:Late' failed .ZeroDivisionError: division by zero.; correct it"),
        ("loss_room:Short", r"loss 'loss_room:Short': slopes has shape \(1,\); give \(6,\)"),
        ("loss_room:Halves", r"loss 'loss_room:Halves': kept is bool of shape \(3,\); give bool of \(6,\)"),
    ],
)
@pytest.mark.trust("loss_room")
def test_what_breaks_in_an_own_loss_names_it(tmp_path, monkeypatch, name, message):
    (tmp_path / "loss_room.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    from cuvee.encoders import HashingEncoder
    from cuvee.train import train_model

    corpus = Corpus.from_rows([{"text": f"row {i}", "target": "ab"[i % 2]} for i in range(6)])
    with pytest.raises(ConfigError, match=message):
        train_model(corpus, settings=TrainSettings(loss=name), encoder=HashingEncoder())
    with pytest.raises(ConfigError, match=r"trainer 'loss_room:train' failed .RuntimeError: two lines.; correct it"):
        train_model(corpus, settings=TrainSettings(trainer="loss_room:train"), encoder=HashingEncoder())
