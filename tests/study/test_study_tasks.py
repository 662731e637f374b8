"""Studies whose rows have no labels: pools are generated and measured; and what the section writing changes."""

import json

import pytest

from command_line import call, refused
from cuvee.study.opening import open_study
from local_llm import write_text

pytestmark = pytest.mark.slow  # each is quick, together they are not

HEADS = {"Question": "Answer", "Instruction": "Response", "Beginning": "Continuation"}


def write_pair(body):
    """A pair in the labelled lines that a completion prompt ends in, else one line."""
    words = write_text(body, words=8).split()
    last = (body.get("prompt") or "").rsplit("\n", 1)[-1].partition(",")[0].strip(":")
    text, target = " ".join(words[:5]), " ".join(words[5:])
    return f" {text}\n{HEADS[last]}: {target}\n=====" if last in HEADS else text


def make(settings, tmp_path, task, rows, **changes):
    path = tmp_path / f"{task}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"real": str(path), "text": "text", "label": "target"}
    if task == "generation" and "context" in rows[0]:
        data |= {"context": "context", "group": "context"}
    base = {
        **settings,
        "task": task,
        "data": data,
        "split": {"test": 0.2, "validation": 0.2},
        "dials": [{"name": "sampling", "levels": [0.3, 1.2]}],
        "mix": {"shares": [0.5], "shape_share": 0.5},
    }
    return {**base, **changes}


QUESTIONS = [
    {"text": f"what is thing {i} of {c}", "target": f"it is part {i} of {c}", "context": f"Thing {c} has parts."}
    for c in range(10)
    for i in range(3)
]
QUERIES = [
    {"text": f"query {i} about {p}", "target": f"Passage {p} speaks of {p}."} for p in range(15) for i in range(2)
]
STORIES = [{"text": f"Once there was thing {i}.", "target": f"It went away to {i}."} for i in range(30)]


@pytest.mark.parametrize(
    ("task", "rows"),
    [("generation", QUESTIONS), ("generation", STORIES), ("retrieval", QUERIES)],
    ids=["question", "instruction", "query"],
)
def test_pools_of_every_task_are_generated_kept_and_measured(settings, tmp_path, local, task, rows):
    local.text = write_pair
    config = make(settings, tmp_path, task, rows)
    with open_study(config, out=tmp_path / "run") as flow:
        pools, train = flow.pools, flow.study.train
        wanted = flow.study.block_rows()
        assert "vendi_q1" in flow.measurements["sampling=0.3"].values
    asked = len(local.bodies)
    for pool in pools.values():
        assert pool.corpus.task == task
        for block in (0, 1):
            assert (pool.corpus.blocks == block).sum() >= wanted[""]
    corpus = next(iter(pools.values())).corpus
    if task == "retrieval":
        assert set(corpus.targets) <= set(train.targets)  # queries are written for passages that are there
    elif "context" in rows[0]:
        assert set(corpus.contexts) <= set(train.contexts)
    # again: all from the run folder, and of the same task
    with open_study(config, out=tmp_path / "run") as flow:
        assert [p.corpus.ids for p in flow.pools.values()] == [p.corpus.ids for p in pools.values()]
        assert next(iter(flow.pools.values())).corpus.task == task
    assert len(local.bodies) == asked


def test_a_kind_topics_and_sources_of_ones_own_are_obeyed(settings, tmp_path, local):
    local.text = write_pair
    dials = [{"name": "topics", "levels": [1, 2], "topics": ["rivers", "trains"]}]
    config = make(settings, tmp_path, "generation", STORIES, dials=dials, writing={"kind": "story"})
    with open_study(config, out=tmp_path / "a") as flow:
        assert {level.name for level in flow.pools} == {"1", "2"}
    assert all("Beginning" in body["prompt"] for body in local.bodies)
    assert any("trains" in body["prompt"] for body in local.bodies)
    local.bodies.clear()
    sources = tmp_path / "passages.jsonl"
    sources.write_text(
        "".join(json.dumps({"text": f"New passage {i} of rain."}) + "\n" for i in range(3)), encoding="utf-8"
    )
    config = make(settings, tmp_path, "retrieval", QUERIES, writing={"sources": str(sources)})
    with open_study(config, out=tmp_path / "b") as flow:
        corpus = next(iter(flow.pools.values())).corpus
    assert set(corpus.targets) == {f"New passage {i} of rain." for i in range(3)}


def test_pools_of_other_tasks_are_made_by_the_command_line_too(settings, tmp_path, local, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(make(settings, tmp_path, "retrieval", QUERIES)), encoding="utf-8")  # JSON is YAML
    code, out, _ = call(capsys, "generate", path, "--out", tmp_path / "run", "--json")
    assert code == 0 and json.loads(out)["sampling=0.3"]["rows"] > 0
    assert local.bodies


def test_labels_and_prompts_are_checked_as_asked(settings, tmp_path, local):
    base = {**settings, "dials": [{"name": "sampling", "levels": [0.9]}]}

    def look(name, **writing):
        local.bodies.clear()
        with open_study({**base, "writing": writing}, out=tmp_path / name) as flow:
            (pool,) = flow.pools.values()
        return {r.reason for r in pool.rejected}, [b["prompt"] for b in local.bodies]

    places = ["northern river", "railway line to the coast", "old harbour basin", "market street", "airport road"]

    def repeat(body):  # one of a few texts, with another number
        return f"City council plans a new bridge over the {places[body['seed'] % 5]} for {body['seed'] % 997} people"

    local.text = lambda body: repeat(body) if body["seed"] % 3 else write_text(body)
    plain, prompts = look("a")
    assert "wrong label" not in plain
    assert "wrong label" in look("c", label_check=0.3)[0]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "label_completion.jinja").write_text("Mine: {{ describe }} of {{ label }}, like {{ examples[0] }}\n1.")
    own = look("d", prompts=str(folder))[1]
    assert own and all(prompt.startswith("Mine: news headlines of ") for prompt in own) and own != prompts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"writing": {"kind": "query"}}, "kind 'query' is not for training rows of task 'classification'"),
        ({"writing": {"label_check": 1.5}}, "label_check"),
        ({"writing": {"prompts": "nowhere"}}, "nowhere"),
        ({"writing": {"sources": "nowhere.jsonl"}}, "nowhere.jsonl: no such file"),
        ({"writing": {"sort": "x"}}, "sort"),
        (
            {"generator": {"kind": "endpoint", "base_url": "http://me:secret@127.0.0.1:9/v1", "model": "m"}},
            "LLM_PASSWORD",
        ),
        (
            {"task": "retrieval", "writing": {"label_check": 0.5}},
            "writing.label_check is for the task classification, this one is retrieval",
        ),
        ({"writing": {"grounded": 0.5}}, "writing.grounded is for the task generation, this one is classification"),
        ({"writing": {"grounded": 2}}, "grounded"),
    ],
)
def test_writing_that_does_not_fit_is_one_line(settings, tmp_path, capsys, local, changes, says):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    assert says in refused(capsys, "generate", path, "--out", tmp_path / "run")
    assert not local.bodies
