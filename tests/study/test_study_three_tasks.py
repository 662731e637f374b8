"""Whole studies of language models and retrievers, small ones made on the spot."""

import json
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from command_line import call, refused
from cuvee.corpus import Corpus
from cuvee.errors import BudgetReached, ConfigError, TrialsFailed
from cuvee.execute import Silent
from cuvee.generate.ledger import Ledger
from cuvee.records import Trial, TrialFailure
from cuvee.report.tables import write_number
from cuvee.study.opening import open_study, run_study
from cuvee.study.outputs import train_advised
from cuvee.study.planning import plan_study
from cuvee.study.status import read_status
from cuvee.train import TrainSettings, load_predictor, train_model
from local_llm import write_text

pytestmark = pytest.mark.slow  # each is quick, together they are not
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ANSWERS = [
    {"text": f"what is thing {i} of {c}", "target": f"it is part {i} of thing {c}", "context": f"Thing {c} has parts."}
    for c in range(12)
    for i in range(3)
]
QUERIES = [
    {"text": f"query {i} about {p}", "target": f"Passage {p} speaks of {p}."} for p in range(20) for i in range(2)
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def byte_tokenizer(folder):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>", "<pad>"],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([row["target"] for row in ANSWERS], trainer)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    made.save_pretrained(str(folder))
    return made


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A Llama of two layers with random weights."""
    folder = tmp_path_factory.mktemp("llama")
    words = byte_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(words), bos_token_id=0, eos_token_id=1, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """A BERT of two layers with random weights."""
    folder = tmp_path_factory.mktemp("bert")
    words = byte_tokenizer(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), pad_token_id=2, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def write_answer(body):
    words = write_text(body, words=8).split()
    text, target = " ".join(words[:5]), " ".join(words[5:])
    last = (body.get("prompt") or "").rsplit("\n", 1)[-1]
    return f" {text}\nAnswer: {target}\n=====" if last.startswith("Question") else text


def make(settings, tmp_path, local, task, model, **changes):
    local.text = write_answer
    path = tmp_path / f"{task}.jsonl"
    rows = ANSWERS if task == "generation" else QUERIES
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"real": str(path), "text": "text", "label": "target"}
    if task == "generation":
        data |= {"context": "context"}
    train = {"steps": 4, "settings": {"model": model, "batch_size": 4, "learning_rate": 1e-3, "max_length": 64}}
    base = {
        **settings,
        "task": task,
        "data": data,
        "split": {"test": 0.25, "validation": 0.25, "rows_per_label": 6},
        "dials": [{"name": "sampling", "levels": [0.3, 0.9, 1.5]}],
        "mix": {"shares": [0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 1},
        "train": train,
    }
    return {**base, **changes}


def failures_of(config, tmp_path):
    with open_study(config, out=tmp_path / "run") as flow:
        return [o for o in flow.grid if isinstance(o, TrialFailure)]


def test_a_study_of_language_models_ends_in_advice_on_its_own_score(settings, tmp_path, local, writer):
    evaluate = {"score": "token_probability", "max_tokens": 8, "diversity": True}
    config = make(settings, tmp_path, local, "generation", writer, evaluate=evaluate)
    result = run_study(config, out=tmp_path / "run")
    failed = [failure.reason for failure in failures_of(config, tmp_path)]
    assert not failed and result.advice.best is not None
    assert result.advice.score == "token_probability" and "token probability" in result.advice.sentence
    cells = {s.cell.kind: s for s in result.advice.cells}
    assert set(cells) == {"real-only", "real-duplicated", "blend", "synthetic-only", "untuned"}
    assert all(s.cell.trainer == "causal" and 0 < s.accuracy < 1 for s in cells.values())
    (gain,), real = cells["untuned"].gains, cells["real-only"]
    assert gain.over == "real-only" and gain.draws == real.draws == 2 and cells["untuned"].draws == 1
    assert gain.value == pytest.approx(cells["untuned"].accuracy - real.accuracy, abs=1e-9) and gain.value < 0
    assert "Tuning on the real rows alone is not shown to help: +0.1 points [" in result.advice.scope
    assert len({round(s.accuracy, 12) for s in cells.values()}) > 1
    with open_study(config, out=tmp_path / "run") as flow:
        trials = flow.grid
        (trial,) = [t for t in flow.grid if t.cell == cells["real-only"].cell and t.draw.generation == 0]
        (start,) = [t for t in flow.grid if t.cell.kind == "untuned"]
        assert start.steps == 0
        assert trial.scores.score == "token_probability" and trial.scores.graded.shape == (trial.scores.n,)
        assert {"perplexity", "diversity.vendi_q1"} <= set(trial.scores.values)
        assert "rouge_l" not in trial.scores.values  # what the score does not read is not written
        winner = train_advised(flow, flow.advice)
    kept = load_predictor(winner.folder)
    assert kept.settings.steps == 4 and len(kept.write(["what is thing 1"], max_tokens=4, temperature=0.0, seed=0)) == 1
    assert kept.log_likelihood(["what is thing 1"], ["it is part 1"])[0, 0] < 0
    kept = pq.read_table(tmp_path / "run" / "blend" / "train.parquet").column_names
    assert "text" not in kept and {"input_text", "prompt", "completion"} <= {*kept} and "messages" not in kept
    again = run_study(config | {"mix": config["mix"] | {"format": "messages"}}, out=tmp_path / "run")
    assert "messages" in pq.read_table(tmp_path / "run" / "blend" / "train.parquet").column_names
    assert again.advice == result.advice
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "token probability" in page.lower() and "accuracy" not in page.lower()
    assert "What the tuned models write" in page and "a label" not in page and "label agreement" not in page
    written = page[page.index("What the tuned models write") :]
    numbers = [t.scores.values["diversity.vendi_q1"].value for t in trials if t.cell == cells["real-only"].cell]
    assert write_number(sum(numbers) / len(numbers)) in written[: written.index("</table>")]
    assert " 6 real rows," in result.advice.scope


def test_a_study_of_retrievers_ranks_among_more_passages_where_they_are_given(settings, tmp_path, local, ranker):
    config = make(settings, tmp_path, local, "retrieval", ranker)
    first = run_study(config, out=tmp_path / "a").advice
    assert first.score == "ndcg@10" and not first.failures
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": f"Passage {i} of others."}) + "\n" for i in range(200)), "utf-8")
    second = run_study({**config, "evaluate": {"passages": str(more)}}, out=tmp_path / "a").advice
    before = {s.cell: s.accuracy for s in first.cells}
    assert {s.cell for s in second.cells} == set(before)
    assert sum(s.accuracy for s in second.cells) < sum(before.values())


@pytest.mark.parametrize(
    ("task", "changes", "says"),
    [
        ("generation", {"train": {"trainer": "probe"}}, "train: trainer 'probe' is not for task 'generation'"),
        ("retrieval", {"evaluate": {"score": "token_f1"}}, "evaluate.score is 'token_f1' for the task retrieval"),
        ("generation", {"evaluate": {"score": "jugde"}}, "did you mean 'judge'"),
        ("generation", {"evaluate": {"score": ""}}, "evaluate.score is '' for the task generation"),
        ("generation", {"filters": [{"near": 0.9}]}, "name"),
        ("retrieval", {"evaluate": {"diversity": True}}, "evaluate.diversity is for the task generation"),
        ("retrieval", {"evaluate": {"passages": "nowhere.jsonl"}}, "nowhere.jsonl: no such file"),
        ("generation", {"evaluate": {"passages": "x.jsonl"}}, "evaluate.passages is for the task retrieval"),
        ("generation", {"evaluate": {"metric": "x"}}, "metric"),
        ("retrieval", {"train": {"loss": "dimp"}}, "train: loss 'dimp' divides two laws of a target"),
        ("generation", {"train": {"settings": {"temperature": 0.1}}}, "temperature is 0.1, but trainer 'causal'"),
    ],
)
def test_what_a_task_has_no_use_for_is_one_line(settings, tmp_path, local, capsys, task, changes, says):
    config = make(settings, tmp_path, local, task, "tiny", **changes)
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    assert says in refused(capsys, "run", path, "--out", tmp_path / "run")
    assert not local.bodies


def test_prompts_that_are_read_once_give_the_same_study_on_workers_and_adapters_that_are_kept(
    settings, tmp_path, local, writer
):
    config = make(settings, tmp_path, local, "generation", writer, evaluate={"score": "token_probability"})
    config["train"]["settings"] |= {"lora_rank": 2, "frozen_prompts": True}
    made = [
        run_study({**config, "train_winner": True, "execute": {"cpus": 1, **kind}}, out=tmp_path / kind["kind"])
        for kind in ({"kind": "local"}, {"kind": "processes", "workers": 2})
    ]
    scores = [{s.cell.key: s.accuracy for s in each.advice.cells} for each in made]
    assert scores[0] == scores[1] and len(set(scores[0].values())) > 3 and made[0].failed is None
    with open_study(config, out=tmp_path / "local") as flow:  # what the score does not read was not written
        assert {name for o in flow.grid for name in o.scores.values} == {"perplexity", "bits_per_byte"}
    assert (made[0].model / "model" / "adapter_model.safetensors").is_file()
    again = [load_predictor(each.model).log_likelihood(["what is thing 1 of 2"], ["it is part"]) for each in made]
    assert np.array_equal(*again)


def test_a_step_at_the_rate_of_the_untuned_baseline_changes_no_weight(writer):
    base = transformers.AutoModelForCausalLM.from_pretrained(writer).state_dict()
    rows = Corpus.from_rows(ANSWERS, task="generation")
    settings = TrainSettings(trainer="causal", model=writer, steps=1, batch_size=4, max_length=64)
    for rate, same in ((1e-30, True), (1e-3, False)):
        found = train_model(rows, settings=replace(settings, learning_rate=rate)).model.state_dict()
        assert all(torch.allclose(found[name], base[name], rtol=0, atol=1e-20) for name in base) is same


@pytest.mark.trust("own_scores")
def test_a_score_of_ones_own_decides_and_its_code_is_part_of_a_trial(settings, tmp_path, local, writer):
    config = make(settings, tmp_path, local, "generation", writer, evaluate={"score": "own_scores:begins_alike"})
    result = run_study(config, out=tmp_path / "run")
    assert result.advice.score == "own_scores:begins_alike"
    with open_study(config, out=tmp_path / "run") as flow:
        assert all(isinstance(o, Trial) and set(o.scores.graded.tolist()) <= {0.0, 1.0} for o in flow.grid)
    line = "score 'own_scores:of_one' is .* it must be a function of"
    with pytest.raises(ConfigError, match=line):
        run_study({**config, "evaluate": {"score": "own_scores:of_one"}}, out=tmp_path / "other")


class Notes(Silent):
    """Keeps what it hears."""

    def __init__(self):
        self.notes = []

    def noted(self, message):
        self.notes.append(message)


RUBBISH = "well, 3 or 8"


def judge_words(body):
    """A judge that counts the words of the reference in an answer; an answer of a certain word gets rubbish."""
    if not body.get("messages"):
        return write_answer(body)
    told = body["messages"][1]["content"]
    if "Answer B:" in told:
        return "A"
    reference, answer = told.partition("Reference:\n")[2].split("\n\nAnswer:\n")
    if told.startswith("All is rubbish") or "part 1" in reference:
        return RUBBISH
    return f"{min(10, 1 + len(set(reference.split()) & set(answer.split())))}/10"


def test_a_judge_scores_every_row_its_rubbish_is_counted_and_nothing_is_asked_twice(settings, tmp_path, local, writer):
    (tmp_path / "rubric.md").write_text("Count the words.", encoding="utf-8")
    part = {"kind": "endpoint", "base_url": settings["generator"]["base_url"], "model": "tiny"}
    evaluate = {"score": "judge", "judge": part, "rubric": str(tmp_path / "rubric.md"), "max_tokens": 6}
    config = make(settings, tmp_path, local, "generation", writer, evaluate=evaluate)
    local.text = judge_words
    plan = plan_study({**config, "evaluate": {**evaluate, "judge": {**part, "budget": {"requests": 9}}}})
    assert not any(body.get("messages") for body in local.bodies)
    (planned,) = re.findall(r"the judge is asked ([\d,]+) times", "; ".join(plan.notes))
    assert any(note.startswith("evaluate.judge.budget.requests is 9, and the plan") for note in plan.notes)
    told = Notes()
    result = run_study(config, out=tmp_path / "run", listener=told)
    assert result.advice.score == "judge" and failures_of(config, tmp_path) == []
    asked = [body for body in local.bodies if body.get("messages")]
    assert all(body["temperature"] == 0 and body["messages"][1]["content"].startswith("Count") for body in asked)
    with Ledger(tmp_path / "run" / "judge.sqlite", readonly=True) as ledger:
        assert ledger.totals().requests == len(asked) == len({json.dumps(body, sort_keys=True) for body in asked})
    with open_study(config, out=tmp_path / "run") as flow:
        trials = [t for t in flow.grid if isinstance(t, Trial)]
        assert flow.confirmation is not None and flow.confirmation_trials is not None
        judged = sum(t.scores.n for t in (*trials, *flow.confirmation_trials.outcomes))
        assert judged + 2 * len(flow.study.split.test) == int(planned.replace(",", ""))
        assert flow.confirmation.note.startswith("In pairs, the judge's verdicts on its answers")
        assert re.search(
            r"agree with token F1 by a rank correlation of 0\.\d\d over \d+ answers", flow.confirmation.note
        )
        status, asked_in_all = read_status(tmp_path / "run"), len(asked)
        assert status.others["judge"].requests == asked_in_all > 0 == len(status.others) - 1
        lacking = sum(int(t.scores.values["judge"].settings["without a verdict"]) for t in trials)
    assert lacking > 0 and any(f"{lacking} of them without a readable verdict" in note for note in told.notes)
    assert all(np.allclose(t.scores.graded.mean(), t.scores.values["judge"].value) for t in trials)
    # the trials are gone, the verdicts are not: nothing is asked again, and all comes out as it was
    with sqlite3.connect(tmp_path / "run" / "trials.sqlite") as trials_of:
        trials_of.execute("DELETE FROM trials")
    many = len(local.bodies)
    assert run_study(config, out=tmp_path / "run").advice == result.advice and len(local.bodies) == many
    (tmp_path / "rubric.md").write_text("All is rubbish.", encoding="utf-8")
    with pytest.raises(TrialsFailed, match="replies of the judge hold no single number from 1 to 10"):
        run_study(config, out=tmp_path / "other")


def test_a_cross_fitted_study_has_a_judge_in_every_fold(settings, tmp_path, local, writer, capsys):
    part = {"kind": "endpoint", "base_url": settings["generator"]["base_url"], "model": "tiny"}
    part |= {"prices": {"prompt_per_million": 1, "completion_per_million": 2}}
    split = {"crossfit": 2, "validation": 6, "rows_per_label": 4}
    config = make(
        settings, tmp_path, local, "generation", writer, split=split, dials=[{"name": "sampling", "levels": [0.3, 1.5]}]
    )
    local.text = judge_words
    result = run_study({**config, "evaluate": {"score": "judge", "judge": part, "max_tokens": 6}}, out=tmp_path / "run")
    asked = [body for body in local.bodies if body.get("messages")]
    assert result.advice.score == "judge" and result.advice.confirmation is not None
    account = read_status(tmp_path / "run").others["judge"]
    assert account.requests == len(asked) and account.cost == pytest.approx(len(asked) * (7 + 2 * 5) / 1e6)
    assert f"judge: requests answered  {len(asked)}" in re.sub(
        r" {2,}", "  ", call(capsys, "status", tmp_path / "run")[1]
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "side by side" in page and page.count("real rows alone</th>") == 1


def test_ten_outputs_stand_side_by_side_on_the_page(settings, tmp_path, local, writer):
    config = make(settings, tmp_path, local, "generation", writer, evaluate={"score": "token_f1", "max_tokens": 6})
    result = run_study(config, out=tmp_path / "run")
    with open_study(config, out=tmp_path / "run") as flow:
        validation, trials = flow.study.split.validation, [t for t in flow.grid if isinstance(t, Trial)]
    wrote = next(t for t in trials if t.cell == result.advice.best.cell).scores.written
    assert len(wrote) == min(10, len(validation)) and any(wrote)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    table = page.partition("What models wrote, side by side</h3>")[2].partition("</table>")[0]
    heads = re.findall("<th [^>]*>(.*?)</th>", table)
    assert heads[:3] == ["prompt", "real answer", "real rows alone"] and heads[3].startswith("best: sampling")
    assert len(re.findall("<tr><td", table)) == len(wrote)
    assert all(text in table for text in validation.targets[: len(wrote)])


def test_a_judge_stops_at_its_budget_and_goes_on(settings, tmp_path, local, writer):
    part = {"kind": "endpoint", "base_url": settings["generator"]["base_url"], "model": "tiny"}
    evaluate = {"score": "judge", "judge": {**part, "budget": {"requests": 5}, "concurrency": 1}, "max_tokens": 6}
    config = make(settings, tmp_path, local, "generation", writer, evaluate=evaluate)
    local.text = judge_words
    with pytest.raises(BudgetReached):
        run_study(config, out=tmp_path / "run")
    asked = [body for body in local.bodies if body.get("messages")]
    assert len(asked) == 5
    evaluate["judge"] = part
    assert run_study({**config, "evaluate": evaluate}, out=tmp_path / "run").advice.best is not None
    asked = [json.dumps(body, sort_keys=True) for body in local.bodies if body.get("messages")]
    assert len(asked) == len(set(asked)) > 5
