"""Trainers of the user's own: a program that is handed a folder, and a function of four arguments."""
# ruff: noqa: ARG001, ARG005

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, CuveeError, InputError, TrainingError, TrialsAwaited
from cuvee.evaluate import evaluate_model
from cuvee.train import Program, TrainSettings, load_predictor, train_model
from cuvee.train.command import offer_inputs

PROGRAM = Path(__file__).with_name("own_program.py")
LINE = f"{sys.executable} -S '{PROGRAM}' {{folder}}"
WORDS = {"good": "yes", "fine": "yes", "bad": "no", "poor": "no"}
pytestmark = pytest.mark.trust(__name__)


def make(*texts: str, origin: str = "real", task: str = "classification") -> Corpus:
    rows = [{"text": text, "target": WORDS[text.split()[-1]]} for text in texts]
    return Corpus.from_rows(rows, origin=origin, task=task)


BLEND = make("this was good", "that was bad").joined(make("so fine", "so poor", origin="synthetic"))
HELD_OUT = make("quite good", "quite poor", "how bad", "quite good")


def train(folder: Path, blend: Corpus = BLEND, **terms: object):
    settings = TrainSettings(trainer="command", steps=7, seed=3, program=Program(**{"run": LINE, **terms}))
    offer_inputs(folder, HELD_OUT)
    return train_model(blend, settings=settings, validation=make("one good"), folder=folder)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_program_is_handed_a_trial_and_its_answers_are_scored(tmp_path):
    weighed = BLEND.with_columns(weight=[1.0, 1.0, 0.5, 1.5])
    predictor = train(tmp_path / "trial", weighed, settings={"lr": [1e-4, "cosine"]})
    found = evaluate_model(predictor, HELD_OUT)
    assert found.correct.tolist() == [True, True, True, True] and set(found.values) == {"accuracy", "macro_f1"}
    assert read(tmp_path / "trial" / "train.jsonl")[2] == {
        "text": "so fine", "label": "yes", "origin": "synthetic", "weight": 0.5,
    }  # fmt: skip
    assert read(tmp_path / "trial" / "validation.jsonl")[0]["label"] == "yes"
    # without a target, and without the ids of the rows, which are hashes of text and target
    inputs = [{"id": 0, "text": "quite good"}, {"id": 1, "text": "quite poor"}, {"id": 2, "text": "how bad"}]
    assert read(tmp_path / "trial" / "eval.jsonl") == inputs
    told = json.loads((tmp_path / "trial" / "trial.json").read_text(encoding="utf-8"))
    assert told == {
        "task": "classification", "seed": 3, "steps": 7, "labels": ["no", "yes"], "settings": {"lr": [1e-4, "cosine"]},
    }  # fmt: skip
    predictor.save(tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "votes.json").read_text(encoding="utf-8"))["fine"] == {"yes": 0.5}
    with pytest.raises(InputError, match=r"no predictor\.json here.*is for your own code$"):
        load_predictor(tmp_path / "kept")
    (tmp_path / "kept" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"own code; load it with from_pretrained\('.*kept'\), or train it on: --set model="
    ):
        load_predictor(tmp_path / "kept")


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(
    ("do", "terms", "said"),
    [
        ("fail", {}, "ended with exit code 1; the end of its log: reading rows | ValueError: no learning rate"),
        ("die", {}, "ended with exit code 137, by signal SIGKILL; the end of its log: reading rows"),
        ("hang", {"timeout_s": 2}, "took longer than train.command.timeout_s (2 s) and was ended; the end of its"),
        ("swell", {"memory_gb": 0.2}, "GB, more than train.command.memory_gb (0.2), and was ended; the end of its log"),
        ("silent", {}, "the program left neither predictions.jsonl nor scores.jsonl; the end of its log: reading rows"),
        ("rubbish", {}, "predictions.jsonl, line 1: broken JSON"),
        ("few", {}, "predictions.jsonl lacks 2 of 3 rows; the first is id 0"),
        ("many", {}, "predictions.jsonl has 1 rows whose id is none of eval.jsonl, or is there twice"),
        ("", {"run": "no-such-program {folder}"}, "there is no program 'no-such-program'"),
    ],
)
def test_a_program_that_misbehaves_is_a_failure_with_the_end_of_its_log(tmp_path, do, terms, said):
    own = {"do": do, "child": str(tmp_path / "child")}
    with pytest.raises(TrainingError) as failed:
        train(tmp_path / "trial", settings=own, **terms)
    assert said in str(failed.value) and "\n" not in str(failed.value)
    if do == "hang":  # what it started is ended too
        child = int((tmp_path / "child").read_text(encoding="utf-8"))
        time.sleep(0.1)
        assert not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text(encoding="ascii")
    # put right, it is run again in the same folder
    assert train(tmp_path / "trial").predict(["quite good"]) == ["yes"]


def test_what_a_program_has_finished_is_not_run_again_and_scores_stand_for_predictions(tmp_path):
    own = {"log": str(tmp_path / "log"), "scores": 0.25}
    for _ in range(2):
        found = evaluate_model(train(tmp_path / "trial", settings=own), HELD_OUT)
        assert found.score == "score" and found.per_item.tolist() == [0.25] * 4
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) == 1


def test_a_folder_that_is_run_elsewhere_is_written_once_and_read_when_it_has_predictions(tmp_path):
    folder = tmp_path / "trial"
    with pytest.raises(TrialsAwaited):
        train(folder, run=None)
    before = (folder / "train.jsonl").stat().st_mtime_ns
    with pytest.raises(TrialsAwaited):
        train(folder, run=None)
    assert (folder / "train.jsonl").stat().st_mtime_ns == before
    lines = [{"id": 2, "prediction": "no"}, {"id": 0, "prediction": "yes"}]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    with pytest.raises(TrainingError, match="lacks 1 of 3 rows; the first is id 1; it wrote nothing to its log"):
        train(folder, run=None)
    with (folder / "predictions.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": 1, "prediction": "maybe"}\n')
    found = evaluate_model(train(folder, run=None), HELD_OUT)
    assert found.correct.tolist() == [True, False, True, True]


@pytest.mark.parametrize("place", ["trial", "trial/inside"])
def test_a_file_where_the_folder_goes_is_a_failure_that_names_it(tmp_path, place):
    (tmp_path / "trial").write_text("")
    with pytest.raises(TrainingError, match=r"trial.*: a file is where the trial's folder goes; move it away"):
        train(tmp_path / place)


def test_predictions_none_of_which_is_a_label_are_refused_with_the_labels(tmp_path):
    predictor = train(tmp_path / "trial", settings={"do": "unlabelled"})
    with pytest.raises(
        ConfigError, match=r"no answer of trainer 'command' is a known label: the first is 'none'.*no, yes"
    ):
        evaluate_model(predictor, HELD_OUT)


# --- a function ---
def votes(blend, validation, seed, steps):
    """At most ten lines, as in the how-to."""
    known = dict(zip((text.split()[-1] for text in blend.texts), blend.targets, strict=True))
    assert (len(validation), seed, steps) == (1, 3, 7) and blend.weights.tolist() == [1, 1, 0.5, 0.5]
    return lambda inputs: [known.get(text.split()[-1], "?") for text in inputs]


def shares(blend, validation, seed, steps):
    return lambda inputs: [{"yes": 0.7, "no": 0.2, "maybe": 0.1} for _ in inputs]


def words(blend, validation, seed, steps):
    return lambda inputs: [{"yes": "likely"} for _ in inputs]


def vectors(blend, validation, seed, steps):
    return lambda inputs: [[len(text), text.count("o") + 1] for text in inputs]


def nothing(blend, validation, seed, steps):
    pass


def short(blend, validation, seed, steps):
    return lambda inputs: inputs[1:]


def broken(blend, validation, seed, steps):
    return lambda inputs: 1 / 0


class Bare:
    def __init__(self, settings):
        self.settings = settings


def bare(training):
    return Bare(training.settings)


def fit(name: str, task: str = "classification", loss: str = "ce", **settings):
    made = TrainSettings(trainer=f"{__name__}:{name}", loss=loss, steps=7, seed=3, **settings)
    blend = Corpus(BLEND.table, task)
    return train_model(blend, settings=made, validation=make("one good"))


def test_a_function_trains_for_every_task_and_is_told_the_weights(tmp_path):
    predictor = fit("votes", loss="source_weight", source_weight=0.5)
    assert evaluate_model(predictor, HELD_OUT).correct.all()
    known = evaluate_model(fit("shares"), HELD_OUT).values["log_loss"].value
    assert known == pytest.approx(-np.log([0.7, 0.2, 0.2, 0.7]).mean())
    with pytest.raises(ConfigError, match=r"has no save\(folder\)"):
        predictor.save(tmp_path)
    written = evaluate_model(
        fit("votes", "generation", "source_weight", source_weight=0.5), Corpus(HELD_OUT.table, "generation")
    )
    assert written.score == "token_f1" and written.per_item.all() and "perplexity" not in written.values
    ranked = fit("vectors", "retrieval").encode_queries(["a", "oo"])
    assert ranked.dtype == np.float32 and np.allclose((ranked**2).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("name", "task", "score", "said"),
    [
        ("nothing", "classification", None, r"returned None; return a function predict\(inputs\)"),
        ("short", "classification", None, "predict of trainer '.*short' gave 3 answers for 4 inputs; give one each"),
        ("broken", "classification", None, "predict of trainer '.*broken' failed .ZeroDivisionError"),
        ("words", "classification", None, "predict of trainer '.*words' failed"),
        ("vectors", "generation", None, r"gave \[\d+, \d+\]; give a text for each prompt"),
        ("bare", "classification", None, r"needs a predictor with labels and predict_proba; this one \(Bare\) lacks"),
        ("bare", "retrieval", None, r"this one \(Bare\) lacks encode_queries and encode_passages"),
        ("votes", "generation", "token_probability", r"needs log_likelihood\(prompts, completions\), which this"),
        ("make", "classification", None, r"must be a function of \(blend, validation, seed, steps\), or a function of"),
    ],
)
def test_errors_name_what_an_object_lacks(name, task, score, said):
    with pytest.raises(CuveeError, match=said):
        weight = {"loss": "source_weight", "source_weight": 0.5} if name == "votes" else {}
        evaluate_model(fit(name, task, **weight), Corpus(HELD_OUT.table, task), score=score)


def test_losses_that_look_at_the_model_are_refused():
    with pytest.raises(ConfigError, match="loss 'dimp' looks at the model as it trains"):
        fit("votes", loss="dimp")
    with pytest.raises(ConfigError, match=r"takes its settings from train.command.settings"):
        train_model(BLEND, settings=TrainSettings(trainer="command", program=Program(run=LINE), batch_size=4))
