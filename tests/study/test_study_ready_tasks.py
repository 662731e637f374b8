"""Ready-made pools for generation and retrieval: read, filtered, cut by context or passage, selected from, measured."""

import json

import numpy as np
import pytest
from test_study_tasks import QUERIES, QUESTIONS, make

from command_line import refused
from cuvee.corpus import Corpus, write_corpus
from cuvee.defects import grounded_share
from cuvee.errors import ConfigError, InputError
from cuvee.records import Cell, Draw
from cuvee.study.opening import open_study
from cuvee.study.running import make_mixing
from cuvee.train import TrainSettings, train_model

WORDS = "amber birch cedar delta ember frost grove harbor island jungle kernel lagoon meadow nectar orchid".split()


def words(*seed, n=6):
    return " ".join(np.random.default_rng(seed).choice(WORDS, n))


def questions(contexts=24, each=4):
    return [
        {"prompt": f"why {words(c, i)}", "completion": words(c, i, 1, n=4), "about": f"Other {c} is {words(c, 9)}."}
        for c in range(contexts)
        for i in range(each)
    ]


def queries(passages=24, each=4):
    return [
        {"query": f"find {words(p, i)}", "passage": f"Other passage {p} on {words(p, 8)}."}
        for p in range(passages)
        for i in range(each)
    ]


@pytest.fixture
def of_files(settings, tmp_path):
    """A study of a task with a pool of its own, in a file."""

    def build(task, rows, pool, *, select=None, **changes):
        path = tmp_path / f"pool-{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in pool), encoding="utf-8")
        columns = (
            {"text": "query", "label": "passage"} if task == "retrieval" else {"text": "prompt", "label": "completion"}
        )
        columns |= {"context": "about"} if task == "generation" else {}
        entry = {
            "path": str(path),
            **columns,
            **({"dial": "select", "select": select} if select else {"dial": "d", "level": "a"}),
        }
        made = make(settings, tmp_path, task, rows, **changes)
        kept = {key: value for key, value in made.items() if key != "dials"}
        draws = {"generation": 2, "sampling": 1, "training": 1, "confirm": 1}
        return {**kept, "generator": {"kind": "files"}, "pools": [entry], "draws": draws}

    return build


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(
    ("task", "rows", "pool"), [("generation", QUESTIONS, questions()), ("retrieval", QUERIES, queries())]
)
@pytest.mark.parametrize("select", [None, {"metric": "log_det", "levels": 3}])
def test_draws_are_whole_by_context_or_passage_and_are_measured(of_files, tmp_path, task, rows, pool, select):
    config = of_files(task, rows, pool, select=select)
    with open_study(config, out=tmp_path / "run") as flow:
        pools, wanted = list(flow.pools.values()), flow.study.block_rows()
        measured = [flow.measurements[level.key] for level in flow.pools]
    assert len(pools) == (3 if select else 1)
    draw_of: dict[str, set[int]] = {}
    for made in pools:
        corpus = made.corpus
        assert corpus.task == task and set(corpus.origins) == {"synthetic"}
        blocks = corpus.blocks
        for block in (0, 1):
            count = int((blocks == block).sum())
            assert count == wanted[""] if select else count >= wanted[""]
        about = corpus.targets if task == "retrieval" else corpus.contexts
        for name, block in zip(about, blocks.tolist(), strict=True):
            draw_of.setdefault(name, set()).update({block} - {-1})
    assert all(len(found) <= 1 for found in draw_of.values())
    values = [each.values["dcscore_tau0.1"].value for each in measured]
    assert values == sorted(values)


def test_what_leaks_repeats_or_is_broken_goes_and_is_listed(of_files, tmp_path):
    pool = questions()
    with open_study(of_files("generation", QUESTIONS, pool), out=tmp_path / "a") as flow:
        held_out, train = flow.study.split.validation, flow.study.train
    bad = [
        {"prompt": "of a held-out passage", "completion": "yes", "about": held_out.contexts[0].upper()},
        {"prompt": held_out.texts[0], "completion": "yes", "about": "Something new."},
        {"prompt": train.texts[0], "completion": "yes", "about": train.contexts[0]},
        {"prompt": pool[0]["prompt"], "completion": "again", "about": pool[0]["about"]},
        {"prompt": "what comes", "completion": "As an AI language model, I cannot say.", "about": "Something new."},
    ]
    fine = {"prompt": pool[0]["prompt"], "completion": "again", "about": pool[4]["about"]}  # of another context
    config = of_files("generation", QUESTIONS, [*pool, *bad, fine])
    with open_study(config, out=tmp_path / "b") as flow:
        (made,) = flow.pools.values()
        log = flow.study.folder.access_log()
    assert sorted(r.reason for r in made.rejected) == [
        "dedupe: repeats a given text",
        "dedupe: repeats an earlier row",
        "degenerate: completion: refusal",
        "leak: leaks held-out data (exact)",
        "leak: leaks held-out data (source)",
    ]
    assert f"{len(pool) + 1} of {len(pool) + 6} rows kept" in made.note
    assert {reason for reason, _ in log} == {"leak-guard"} and len(log) == 3  # texts, sources, names of rows


def test_filters_of_answers_go_by_words_by_a_reader_and_by_a_judge_and_their_replies_are_kept(
    of_files, settings, tmp_path, local
):
    pool = questions()
    for row in pool[::2]:
        row["completion"] = row["about"].split()[-1].strip(".") + " " + row["completion"].split()[0]
    known = {row["prompt"]: row["completion"] for row in pool[:48]}

    def reply(body):  # a reader that knows half the answers; a judge that likes words with an "a"
        told = body["prompt"] if "prompt" in body else body["messages"][1]["content"]
        if "Answer:\n" in told:
            return "9" if "a" in told.rpartition("Answer:\n")[2] else "2"
        return known.get(told.rpartition("\n\n")[2].removesuffix("\n\nAnswer:"), "nothing")

    local.text = reply
    by = {**settings["generator"], "api": "chat"}
    base = [{"name": "degenerate"}, {"name": "leak"}]
    each = {
        "pairs": {"name": "pairs", "grounded": 0.5},
        "reader": {"name": "reader", "by": by, "least": 0.5},
        "judge": {"name": "judge", "by": by, "least": 5},
    }
    for name, wanted in each.items():
        config = of_files("generation", QUESTIONS, pool, filters=[*base, wanted])
        with open_study(config, out=tmp_path / name) as flow:
            (made,) = flow.pools.values()
        gone = {row.text for row in made.rejected if row.reason.startswith(f"{name}: ")}
        left = [row for row in pool if row["prompt"] not in gone]
        assert 0 < len(left) < len(pool)
        if name == "pairs":
            assert left == [row for row in pool if grounded_share(row["completion"], row["about"]) >= 0.5]
        elif name == "reader":
            assert left == pool[:48] and "of 18 real rows 0.00" in made.note
        else:
            assert all("a" in row["completion"] for row in left)
        asked = len(local.bodies)
        with open_study(config, out=tmp_path / f"{name}") as flow:
            assert len(next(iter(flow.pools.values())).corpus) == len(left)
        assert len(local.bodies) == asked  # replies are in the run folder


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "pairs", "grounded": 1.5}, "filters.1.grounded"),
        ({"name": "reader", "least": 0}, "least"),
        ({"name": "judge"}, "by"),
        ({"name": "judge", "by": {"kind": "embedded"}, "rubric": "none.md"}, "none.md"),
    ],
)
def test_filters_of_answers_that_make_no_sense_are_one_line(of_files, tmp_path, capsys, given, says):
    config = of_files("generation", QUESTIONS, questions(), filters=[{"name": "leak"}, given])
    (tmp_path / "study.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert says in refused(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")


def test_filters_of_answers_are_for_the_task_generation_alone(of_files):
    with pytest.raises(ConfigError, match=r"filter 'pairs' is for the task generation, this one is retrieval"):
        open_study(of_files("retrieval", QUERIES, queries(), filters=[{"name": "leak"}, {"name": "pairs"}])).__enter__()


def test_a_passage_of_both_sides_of_the_split_is_no_secret(of_files, tmp_path):
    # queries are split by themselves, so a passage of a held-out query may be that of a training row
    with open_study(of_files("retrieval", QUERIES, queries()), out=tmp_path / "a") as flow:
        train, held_out = set(flow.study.train.targets), set(flow.study.split.validation.targets)
    both, one = sorted(train & held_out)[0], sorted(held_out - train)[0]
    rows = [{"query": "one more of both", "passage": both}, {"query": "one more of it", "passage": one}]
    with open_study(of_files("retrieval", QUERIES, [*queries(), *rows]), out=tmp_path / "b") as flow:
        (made,) = flow.pools.values()
    assert both in made.corpus.targets and one not in made.corpus.targets


def test_a_pool_without_contexts_is_one_line_and_one_of_a_single_context_has_no_blocks(of_files, tmp_path):
    bare = [{"prompt": f"why {words(i)}", "completion": "so", "about": "  "} for i in range(40)]
    with (
        pytest.raises(InputError, match="40 rows have no context, as real rows do"),
        open_study(of_files("generation", QUESTIONS, bare), out=tmp_path / "a"),
    ):
        pass
    one = [{**row, "about": "The one passage."} for row in questions()]
    with open_study(of_files("generation", QUESTIONS, one), out=tmp_path / "b") as flow:
        (pool,) = flow.pools.values()
    assert len(pool.corpus) and set(pool.corpus.blocks) == {-1}


@pytest.mark.slow  # with the others of its kind
def test_weights_of_a_blend_reach_the_probe(settings, tmp_path, headlines):
    rows = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    path = tmp_path / "pool.jsonl"
    # the first rows go to training, so that the pool is of other texts
    pool = Corpus.from_rows(
        [{"text": f"{row['text']} again", "target": row["label"]} for row in rows], origin="synthetic"
    )
    write_corpus(pool.with_columns(weight=np.arange(len(rows)) % 3 + 0.5), path)
    base = {key: value for key, value in settings.items() if key not in ("dials", "generator")}
    entry = {"dial": "d", "level": "a", "path": str(path)}
    config = {**base, "generator": {"kind": "files"}, "pools": [entry], "filters": [{"name": "leak", "whole": False}],
              "draws": {"generation": 1, "sampling": 1, "training": 1, "confirm": 0}}  # fmt: skip
    with open_study(config, out=tmp_path / "run") as flow:
        study, ((level, made),) = flow.study, flow.pools.items()
        cell = Cell(
            kind="blend", dial="d", level="a", share=0.5, rows_per_label=study.rows_per_label, scope="this pool"
        )
        blend = (
            make_mixing(study, {level.key: made.corpus}, [0])
            .mix(cell, Draw(generation=0, sampling=0, training=0))
            .corpus
        )
        how = TrainSettings()
        ours = train_model(blend, settings=how, encoder=study.encoder).model.weights
        theirs = train_model(
            blend.with_columns(weight=np.ones(len(blend))), settings=how, encoder=study.encoder
        ).model.weights
    assert not np.allclose(ours, theirs)
