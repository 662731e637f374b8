"""Studies of pools that are files: filters before anything else, levels selected within each draw."""

import json
import re

import pytest

from cuvee.errors import ConfigError, InputError, LeakError
from cuvee.execute import Silent
from cuvee.study.demo import read_headlines
from cuvee.study.opening import open_study

pytestmark = pytest.mark.slow  # each is quick, together they are not

LABELS = ("business", "politics", "sports")


@pytest.fixture
def pool(headlines, tmp_path):
    """360 other headlines and two copies of rows that are held out or shown."""
    real = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    known = {row["text"] for row in real}
    rows = [{"text": t, "label": y} for t, y in read_headlines() if y in LABELS and t not in known]
    rows = [row for label in LABELS for row in [r for r in rows if r["label"] == label][:120]]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, *real]), encoding="utf-8")
    return path


@pytest.fixture
def config(settings, pool):
    kept = {k: v for k, v in settings.items() if k not in ("dials", "generator")}
    return {
        **kept,
        "generator": {"kind": "files"},
        "pools": [{"dial": "select", "path": str(pool), "select": {"metric": "log_det", "levels": 3}}],
        "mix": {"shares": [0.5, 0.75], "shape_share": 0.75},
    }


def test_levels_are_selected_within_each_draw_and_rise(config, tmp_path):
    with open_study(config, out=tmp_path / "run") as flow:
        pools = {level.name: pool for level, pool in flow.pools.items()}
        measured = [flow.measurements[f"select={name}"].values["dcscore_tau0.1"].value for name in "123"]
        again = flow.study.folder.load_pool(next(iter(flow.pools)), "")
    assert list(pools) == ["1", "2", "3"] and measured == sorted(measured)
    draws = {0, 1}
    for pool in pools.values():
        assert set(pool.corpus.blocks.tolist()) == draws
        for block in draws:
            counts = pool.corpus.keep(pool.corpus.blocks == block).label_counts()
            assert counts == dict.fromkeys(LABELS, 9)  # 3 real rows a label at share 0.75
    # draws share no row: a row of the pool is in one draw, whatever the level
    block_of: dict[str, set[int]] = {}
    for pool in pools.values():
        for id_, block in zip(pool.corpus.ids, pool.corpus.blocks.tolist(), strict=True):
            block_of.setdefault(id_, set()).add(block)
    assert all(len(found) == 1 for found in block_of.values())
    assert again is not None and again.corpus.ids == pools["1"].corpus.ids


class Notes(Silent):
    def __init__(self):
        self.said = []

    def noted(self, message):
        self.said.append(message)


def test_real_rows_in_the_pool_go_as_copies_or_leaks_and_are_counted(config, tmp_path):
    notes = Notes()
    with open_study(config, out=tmp_path / "run", listener=notes) as flow:
        pool = next(iter(flow.pools.values()))
        held_out = {*flow.study.split.validation.texts, *flow.study.split.test.texts_for_leak_guard()}
    reasons = [r.reason for r in pool.rejected]
    assert sum("exact" in reason for reason in reasons) == 90
    assert any(reason.startswith("dedupe") for reason in reasons)
    (told,) = [said for said in notes.said if "rows read" in said]
    assert re.search(r"pool\.jsonl: \d+ rows read, .*dedupe took \d+, leak took \d+, \d+ left", told)
    numbers = [int(number) for number in re.findall(r" (\d+)\b", told)]
    assert numbers[0] == sum(numbers[1:]) and numbers[0] - numbers[-1] == len(reasons)
    assert "leak" in pool.note and not held_out & set(pool.corpus.texts)


@pytest.mark.slow
@pytest.mark.trust("study_filters")
def test_filters_are_obeyed(config, tmp_path):
    def left(filters, name):
        with open_study({**config, "filters": filters}, out=tmp_path / name) as flow:
            pool = next(iter(flow.pools.values()))
        return len(pool.rejected), pool.note

    base = [{"name": "dedupe"}, {"name": "leak"}]
    plain, _ = left(base, "a")
    near, _ = left([{"name": "dedupe", "near": 0.6}, {"name": "leak"}], "b")
    loose, _ = left([{"name": "dedupe", "against_real": False}, {"name": "leak"}], "c")
    agreed, note = left([*base, {"name": "agreement", "top": 0.75}], "d")
    clustered, _ = left([*base, {"name": "fewer-per-cluster", "limit": 1, "threshold": 0.5}], "e")
    own, _ = left([*base, {"name": "study_filters:no_question"}], "f")
    assert loose < plain < min(near, agreed, clustered, own)
    assert "cross-validated accuracy" in note or "too few" in note


def test_a_pool_written_from_all_real_rows_stops_the_study_unless_the_set_test_is_off(config, headlines, tmp_path):
    real = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    halves = [
        {**row, "text": " ".join([*row["text"].split()[part::2], word])}
        for row in real for part in (0, 1) for word in ("says", "report", "today")
    ]  # fmt: skip
    path = tmp_path / "halves.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in halves), encoding="utf-8")
    written = {**config, "pools": [{**config["pools"][0], "path": str(path)}]}
    with pytest.raises(LeakError, match=r"written from held-out rows.*data\.group"):
        with open_study(written, out=tmp_path / "stops") as flow:
            assert flow.pools
    written["filters"] = [{"name": "dedupe"}, {"name": "leak", "whole": False}]
    with open_study(written, out=tmp_path / "goes") as flow:
        assert flow.pools


def test_echoes_of_the_prompts_of_a_file_go(config, tmp_path):
    first = json.loads((tmp_path / "pool.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"]
    (tmp_path / "prompts.txt").write_text(f"{first}\nAnother line of the prompt.\n", encoding="utf-8")
    reasons = []
    for prompts in (None, str(tmp_path / "prompts.txt")):
        filters = [{"name": "degenerate", "prompts": prompts}, {"name": "leak"}]
        with open_study({**config, "filters": filters}, out=tmp_path / f"run-{prompts is None}") as flow:
            reasons.append([r.reason for r in next(iter(flow.pools.values())).rejected])
    assert not any("prompt echo" in reason for reason in reasons[0])
    assert any("prompt echo" in reason for reason in reasons[1])


def test_what_does_not_fit_is_refused_before_anything_is_read(config, settings, tmp_path):
    def says(changes) -> str:
        with pytest.raises((ConfigError, InputError)) as error, open_study({**config, **changes}, out=tmp_path / "x"):
            pass
        return str(error.value)

    assert "must hold leak" in says({"filters": [{"name": "dedupe"}]})
    assert "listed twice" in says({"filters": [{"name": "leak"}, {"name": "leak"}]})
    assert "exactly one" in says({"filters": [{"name": "leak"}, {"name": "agreement"}]})
    select = {"dial": "select", "path": "p.jsonl"}
    assert "give level or select" in says({"pools": [select]})
    assert "did you mean 'vendi'" in says({"pools": [{**select, "select": {"metric": "vendy"}}]})
    own = {**settings, "filters": [{"name": "leak"}]}
    with pytest.raises(ConfigError, match="filters go with pools that are files"), open_study(own, out=tmp_path / "y"):
        pass


def test_a_file_of_which_filters_leave_nothing_is_named(config, pool, tmp_path):
    pool.write_text("".join(json.dumps({"text": "...", "label": label}) + "\n" for label in LABELS), encoding="utf-8")
    pools = [{"dial": "source", "level": "a", "path": str(pool)}]
    with open_study({**config, "pools": pools}, out=tmp_path / "run") as flow:
        with pytest.raises(InputError, match="0 rows are too few for"):
            _ = flow.advice


def test_more_levels_than_a_draw_has_rows_for_is_one_line(config, pool, tmp_path):
    rows = pool.read_text(encoding="utf-8").splitlines()[:360]
    few = [row for label in LABELS for row in [r for r in rows if f'"{label}"' in r][:18]]
    pool.write_text("\n".join(few) + "\n", encoding="utf-8")
    with (
        open_study(config, out=tmp_path / "run") as flow,
        pytest.raises(InputError, match=r"pool.jsonl, draw \d+: 3 lev"),
    ):
        _ = flow.pools


def test_settings_of_the_grid_and_of_the_check_reach_their_own_trainers(config, tmp_path):
    train = {"loss": "gce", "settings": {"q": 0.5}, "check": {"trainer": "probe", "draws": 1}}

    def scores(name, **changes):
        with open_study({**config, "train": {**train, **changes}}, out=tmp_path / name) as flow:
            outcomes = [*flow.grid, *flow.checks]
        assert all(hasattr(o, "scores") for o in outcomes), [o.reason for o in outcomes if not hasattr(o, "scores")]
        return [o.scores.values["log_loss"].value for o in outcomes]

    plain = scores("a")
    assert scores("b", settings={"q": 0.9}) != plain
    check = {**train["check"], "settings": {"l2": 4.0}}
    other = scores("c", check=check)
    assert other != plain and other[: len(plain) - 3] == plain[: len(plain) - 3]  # the grid is as it was
    for wrong, says in (({"settings": {"quu": 1}}, "quu"), ({"settings": {"patience": 3}}, "patience"),
                        ({"trainer": "causal"}, "is not for task 'classification'")):  # fmt: skip
        with pytest.raises(ConfigError, match=says), open_study({**config, "train": wrong}, out=tmp_path / "d"):
            pass


def test_near_rows_stay_on_one_side_of_the_split(config, tmp_path):
    def sides(name, **split):
        with open_study({**config, "split": {**config["split"], **split}}, out=tmp_path / name) as flow:
            split_of = flow.study.split
            return set(split_of.train.texts) | set(split_of.validation.texts), split_of.validation.texts

    assert sides("a")[1] != sides("b", near=0.55)[1]  # rows are linked that were not
    assert sides("c", near=1.0)[1] == sides("d")[1]
