import gzip
import html
import json
from pathlib import Path

import pytest
import yaml

import cuvee
from cuvee.characters import to_markdown
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Silent
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def counted(folder) -> dict[str, bytes]:
    """The files that must not depend on how a run went: pools, blend, advice."""
    names = [*sorted(folder.glob("pools/*.parquet")), *sorted(folder.glob("blend/*")), folder / "advice.json"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}


def test_a_study_ends_with_advice_report_and_blend(settings, tmp_path, local):
    result = run_study(settings, out=tmp_path / "run")
    assert isinstance(result, cuvee.StudyResult)
    assert result.advice.decision in ("use", "do-not-use", "underpowered")
    assert result.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert set(result.measurements) == {
        "real", "sampling=0.3", "sampling=0.9", "sampling=1.5", "paraphrase=1", "paraphrase=0",
    }  # fmt: skip
    assert {m.n for name, m in result.measurements.items() if name != "real"} == {18}
    kinds = {s.cell.kind for s in result.advice.cells}
    assert kinds == {"blend", "real-only", "real-duplicated", "synthetic-only"}
    blend = cuvee.load_corpus(tmp_path / "run" / "blend" / "train.parquet")
    assert blend.fingerprint == result.blend.fingerprint
    card = (tmp_path / "run" / "blend" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"][0]["path"] == "train.parquet"
    assert to_markdown(result.advice.sentence) in card and "tiny" in str(result)
    # the seed examples shown to the LLM are training rows, and no held-out text was ever sent
    with open_study(settings, out=tmp_path / "run") as flow:
        train = set(flow.study.train.ids)
        shown = {i for p in flow.pools.values() for ids in p.corpus.table["seed_ids"].to_pylist() for i in ids or []}
        assert shown and shown <= train
        sent = json.dumps(local.bodies)
        assert not any(json.dumps(t)[1:-1] in sent for t in flow.study.split.validation.texts)


@pytest.mark.slow  # with the others of its kind
def test_running_again_sends_nothing_trains_nothing_and_changes_no_byte(settings, tmp_path, local):
    run_study(settings, out=tmp_path / "run")
    before, sent = counted(tmp_path / "run"), len(local.bodies)
    again = run_study(settings, out=tmp_path / "run")
    assert len(local.bodies) == sent
    assert counted(tmp_path / "run") == before
    assert again.seconds["train"] < 60


@pytest.mark.slow  # with the others of its kind
def test_two_runs_with_a_deterministic_endpoint_give_the_same_bytes(settings, tmp_path):
    run_study(settings, out=tmp_path / "a")
    run_study({**settings, "generator": {**settings["generator"], "concurrency": 1}}, out=tmp_path / "b")
    assert counted(tmp_path / "a") == counted(tmp_path / "b")


@pytest.mark.slow  # with the others of its kind
def test_levels_and_draws_extend_a_run_and_leave_the_old_rows(settings, tmp_path, local):
    run_study(settings, out=tmp_path / "run")
    old = cuvee.load_corpus(tmp_path / "run" / "pools" / "sampling=0.9.parquet")
    sent = {json.dumps(b, sort_keys=True) for b in local.bodies}
    local.bodies.clear()
    wider = {
        **settings,
        "dials": [{"name": "sampling", "levels": [0.3, 0.6, 0.9, 1.5]}, settings["dials"][1]],
        "draws": {**settings["draws"], "generation": 3},
    }
    run_study(wider, out=tmp_path / "run")
    new = cuvee.load_corpus(tmp_path / "run" / "pools" / "sampling=0.9.parquet")
    assert new.texts[: len(old)] == old.texts and len(new) == 27
    assert not sent & {json.dumps(b, sort_keys=True) for b in local.bodies}


@pytest.mark.slow  # with the others of its kind
def test_the_locked_test_is_read_once_and_logged(settings, tmp_path):
    run_study(settings, out=tmp_path / "run")
    with open_study(settings, out=tmp_path / "run") as flow:
        log = flow.study.folder.access_log()
        best = flow.draft.best
        assert [reason for reason, _ in log].count("confirmation") == 1
        (confirmed,) = [detail for reason, detail in log if reason == "confirmation"]
        assert best is not None and confirmed.startswith(best.cell.key + " (")
        assert ("leak-guard", "texts, against leaks") in log
        assert [reason for reason, _ in log].count("look") == 1 == len(flow.confirmation.looks)
    more = {**settings, "draws": {**settings["draws"], "confirm": settings["draws"]["confirm"] + 1}}
    for _ in range(2):  # more draws are one more look; the same again is none
        with open_study(more, out=tmp_path / "run") as flow:
            assert flow.confirmation is not None and flow.confirmation.looks == (2, 3)
            assert flow.confirmation.gains[0].draws == more["draws"]["confirm"]


@pytest.mark.slow  # with the others of its kind
def test_a_look_that_settles_nothing_is_followed_by_the_next_and_none_is_repeated(settings, tmp_path, monkeypatch):
    """An own trainer whose trainings all agree; 9 planned draws are 3 looks, the second of which is cut off."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    longer = {
        **settings,
        "train": {"sensitivity": [], "trainer": "slow_trainer:plain", "steps": 5},
        "draws": {"generation": 2, "confirm": 9},
        "advice": {"alpha": 1e-9},
    }
    with open_study(longer, out=tmp_path / "run", trust=["slow_trainer"]) as flow:
        flow.look(3)
        flow.look(6)
        assert {outcome.draw.training for outcome in flow.confirmation_trials.outcomes} == {1000}
    with open_study(longer, out=tmp_path / "run", trust=["slow_trainer"]) as flow:
        assert flow.confirmation.looks == (3, 6, 9) and flow.confirmation.planned == 9
        assert flow.confirmation.gains[0].draws == 9
        assert [reason for reason, _ in flow.study.folder.access_log()].count("look") == 3
    asked = {**longer, "draws": {**longer["draws"], "training": 2}, "advice": {"delta": 0.49}}
    with open_study(asked, out=tmp_path / "other", trust=["slow_trainer"]) as flow:
        assert flow.confirmation.looks == (3,)  # gains below 49 points are ruled out at once
        assert {outcome.draw.training for outcome in flow.confirmation_trials.outcomes} == {1000, 1001}


@pytest.mark.slow  # with the others of its kind
def test_the_locked_test_is_not_opened_again_for_the_same_cell_made_otherwise(settings, tmp_path):
    run_study(settings, out=tmp_path / "run")
    with open_study(settings, out=tmp_path / "run") as flow:
        before = flow.study.folder.access_log()
    other = {**settings, "train": {**settings["train"], "settings": {"l2": 5.0}}}
    with open_study(other, out=tmp_path / "run") as flow:
        assert flow.confirmation is None  # whichever cell is the best now
        assert flow.study.folder.access_log() == before


@pytest.mark.slow  # with the others of its kind
def test_leaks_never_reach_a_pool(settings, tmp_path, local):
    with open_study(settings, out=tmp_path / "run") as flow:
        leak = flow.study.split.validation.texts[0]
    honest = local.text
    local.text = lambda body: leak if body["seed"] % 4 == 0 else honest(body)
    result = run_study(settings, out=tmp_path / "run")
    assert all(leak not in pool.texts for pool in result.pools.values())
    with open_study(settings, out=tmp_path / "run") as flow:
        assert any("leaks held-out" in r.reason for pool in flow.pools.values() for r in pool.rejected)


def write_pools(folder, rows) -> None:
    for name, wanted in rows.items():
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in wanted), encoding="utf-8")


def files(settings, **pools) -> dict:
    given = {k: v for k, v in settings.items() if k not in ("dials", "generator")}
    return {
        **given,
        "generator": {"kind": "files"},
        "pools": [{"dial": "mine", "level": k, "path": str(p), "group": "group"} for k, p in pools.items()],
    }


def make_rows(prefix: str, labels=("business", "politics", "sports"), groups: int = 12, each: int = 2):
    return [
        {"text": f"{prefix} {label} story {g} told {k} times", "label": label, "group": f"{label}{g}"}
        for label in labels
        for g in range(groups)
        for k in range(each)
    ]


@pytest.mark.slow
def test_ready_made_pools_need_no_llm(settings, tmp_path):
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})
    config = files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    result = run_study(config, out=tmp_path / "run")
    assert set(result.pools) == {"mine=low", "mine=high"}
    assert result.advice.confirmation is not None and result.advice.confirmation.fresh_draws
    low = result.pools["mine=low"]
    used = {(g, b) for g, b in zip(low.groups, low.blocks.tolist(), strict=True) if b >= 0}
    assert len({g for g, _ in used}) == len(used)


@pytest.mark.slow
def test_where_rows_come_in_groups_the_groups_are_the_items(settings, headlines, tmp_path):
    rows = [json.loads(line) for line in headlines.read_text().splitlines()]
    write_pools(
        tmp_path,
        {
            "real.jsonl": [{**row, "page": f"{row['label']} {k % 50 // 5}"} for k, row in enumerate(rows)],
            "low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1),
        },
    )  # fmt: skip
    base = files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    found = {}
    for group in ({}, {"group": "page"}):
        config = {**base, "data": {"real": str(tmp_path / "real.jsonl"), **group}}
        result = run_study(config, out=tmp_path / f"run{len(found)}")
        found[bool(group)] = [g for g in (*result.advice.best.gains, *result.advice.confirmation.gains)]
        assert ("groups of" in result.advice.sentence) == bool(group)
    assert {gain.items for gain in found[False]} == {45} and not any(gain.grouped for gain in found[False])
    assert all(gain.items == 9 and gain.grouped for gain in found[True])


def read_shared(*path):
    """The rows of a shared file."""
    if not (file := DATA.joinpath(*path)).is_file():
        pytest.skip(f"shared data {'/'.join(path)} is not beside the checkout")
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


class Notes(Silent):
    def __init__(self):
        self.said = []

    def noted(self, message):
        self.said.append(message)


@pytest.mark.slow  # two runs of a study, on real pools
@pytest.mark.parametrize("select", [False, True])
def test_a_label_that_a_file_is_short_of_is_lowered_with_a_note_in_plan_terminal_and_page(settings, tmp_path, select):
    real = read_shared("banking77", "test.jsonl")
    made = read_shared("gptaug_banking", "synthetic.jsonl.gz")
    names = ["exchange_rate", "card_arrival", "age_limit"]
    rows = {name: [row for row in made if row["label"] == name] for name in names}
    write_pools(tmp_path, {
        "real.jsonl": [row for row in real if row["label"] in names],
        "pool.jsonl": [*rows["exchange_rate"], *rows["card_arrival"][:2]],
    })  # fmt: skip
    config = files(settings) | {"data": {"real": str(tmp_path / "real.jsonl")}}
    levels = {"select": {"levels": 2}} if select else {"level": "a"}
    config["pools"] = [{"dial": "mine", "path": str(tmp_path / "pool.jsonl"), **levels}]
    config |= {"mix": {"amounts": ["2x", "all"]}, "split": {**config["split"], "rows_per_label": 5}}
    told = "no rows of 1 of 3" if select else "too few rows of 2 of 3 labels ('age_limit': 0, 2x asks 10)"
    assert any(told in note for note in plan_study(config).notes)
    notes = Notes()
    result = run_study(config, out=tmp_path / "run", listener=notes, blend=True)
    assert any(told in note for note in notes.said) and told in html.unescape(result.report.read_text())
    counts = result.composition.label_counts
    assert result.failed is None and counts["age_limit"] == (5, 0)
    assert 1 <= counts["card_arrival"][1] <= 2 and counts["exchange_rate"][1] >= 5


def test_rows_written_from_held_out_rows_go_where_they_name_their_source(settings, tmp_path):
    names = ["exchange_rate", "card_arrival", "transfer_timing"]
    real = [row | {"key": str(k)} for k, row in enumerate(read_shared("gptaug_banking", "train.jsonl"), 100_000_001)]
    made = [row for row in read_shared("gptaug_banking", "synthetic.jsonl.gz") if row["label"] in names]
    texts = {row["key"]: row["text"] for row in real}
    write_pools(tmp_path, {
        "real.jsonl": [row for row in real if row["label"] in names],
        "pool.jsonl": [row | {"of": texts[row["origin"]]} for row in made],
    })  # fmt: skip
    base = files(settings) | {
        "split": {"test": 0.4, "validation": 0.2, "rows_per_label": 4},
        "mix": {"amounts": ["all"]},
    }
    pool = {"dial": "mine", "level": "a", "path": str(tmp_path / "pool.jsonl"), "group": "origin"}
    base["filters"] = [{"name": "leak", "whole": False}]

    def keep(name, group, **more):
        config = base | {"data": {"real": str(tmp_path / "real.jsonl"), "group": group}, "pools": [pool | more]}
        with open_study(config, out=tmp_path / name) as flow:
            (stored,) = flow.pools.values()
            held_out = {*flow.study.split.validation.texts, *flow.study.split.test.texts_for_leak_guard()}
            leaking = sum(texts[row["origin"]] in held_out for row in made)
            taken = sum("(seed row)" in row.reason for row in stored.rejected)
            return sum(texts[origin] in held_out for origin in stored.corpus.groups), leaking, taken

    left, leaking, taken = keep("unnamed", "key")
    assert (left > 0.9 * leaking, leaking > 100, taken) == (True, True, 0)
    for name, group, column in (("key", "key", "origin"), ("text", None, "of")):
        left, leaking, taken = keep(name, group, source=column)
        assert left == 0 < leaking == taken
    with pytest.raises(InputError, match=r"pools\.0: .*'label' \(source\) names no real row, as .*data.group"):
        keep("wrong", "key", source="label")


def test_amounts_go_as_far_as_the_pool_does_and_are_the_same_in_both_notations(settings, tmp_path):
    write_pools(tmp_path, {"p.jsonl": make_rows("x", groups=12, each=1)})
    base = files(settings, p=tmp_path / "p.jsonl")

    def amounts(name, **mix):
        notes = Notes()
        with open_study({**base, "mix": mix}, out=tmp_path / name, listener=notes) as flow:
            cells = {o.cell for o in flow.grid if o.cell.kind == "blend"}
            scopes = {o.cell.scope for o in flow.grid}
        return {round(c.amount, 3): c.whole for c in cells}, scopes, " ".join(notes.said)

    whole, scopes, said = amounts("a", amounts=["1x", 6, "30x", "all"])
    assert whole == {1.0: False, 2.0: False, 4.0: True} and scopes == {"this pool"}
    assert "holds 36 rows, so 30x are left out; all of it, 4x, stands for them" in said
    assert amounts("b", shares=[0.5, 0.75], shape_share=0.75)[0] == {1.0: False, 3.0: False}
    assert amounts("c", amounts=["1x", "3x"])[0] == {1.0: False, 3.0: False}
    assert amounts("d")[0] == {0.3: False, 1.0: False, 3.0: False, 4.0: True}


def test_duplicates_foreign_labels_and_junk_are_left_out_and_counted(settings, tmp_path):
    rows = make_rows("fine", groups=24, each=1)
    junk = [
        rows[0],
        {"text": "<|im_start|>assistant", "label": "sports", "group": "j"},
        {**rows[1], "label": "weather"},
    ]
    write_pools(tmp_path, {"p.jsonl": [*rows, *junk]})
    with open_study(files(settings, p=tmp_path / "p.jsonl"), out=tmp_path / "run") as flow:
        (pool,) = flow.pools.values()
    assert len(pool.rejected) == 3 and len(pool.corpus) == len(rows)
    assert f"{len(rows)} of {len(rows) + 3} rows kept" in pool.note


def test_a_missing_key_variable_is_told(settings, tmp_path):
    generator = {**settings["generator"], "api_key_env": "NO_SUCH_KEY_HERE"}
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE is not set"):
        run_study({**settings, "generator": generator}, out=tmp_path / "run")


def test_training_rows_that_are_also_in_the_test_file_are_left_out(settings, tmp_path):
    rows = [{"text": f"{label} story number {i}", "label": label} for label in ("a", "b") for i in range(12)]
    write_pools(
        tmp_path,
        {
            "real.jsonl": rows,
            "test.jsonl": [*rows[:2], *({**r, "text": "held " + r["text"]} for r in rows)],
            "val.jsonl": [{**r, "text": "kept " + r["text"]} for r in rows],
        },
    )
    data = {
        name: str(tmp_path / f"{file}.jsonl")
        for name, file in (("real", "real"), ("test", "test"), ("validation", "val"))
    }
    with open_study({**settings, "data": data, "split": {}}, out=tmp_path / "run") as flow:
        assert len(flow.study.train) == 22 and len(flow.study.split.test) == 26
        assert len(flow.study.split.validation) == 24
        assert flow.study.folder.access_log() == [("leak-guard", "texts, against leaks")]


def test_real_rows_may_be_a_dataset_or_a_corpus_in_memory(settings, headlines, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    in_memory = {k: v for k, v in settings.items() if k != "data"}
    fingerprints = set()
    for name, real in (("d", datasets.Dataset.from_list(rows)), ("c", cuvee.load_corpus(headlines)), ("f", None)):
        with open_study(in_memory if real is not None else settings, real=real, out=tmp_path / name) as flow:
            fingerprints.add(flow.study.train.fingerprint)
    assert len(fingerprints) == 1
