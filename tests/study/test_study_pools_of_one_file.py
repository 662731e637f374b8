"""Pools that are parts of one file, and pools without an order."""

import json
from collections import Counter

import pytest
from test_study_run import files, make_rows

from cuvee.errors import ConfigError, InputError, RunFolderMismatch
from cuvee.study.opening import open_study, run_study

SMALL = {"draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 0}}


@pytest.fixture
def one_file(settings, tmp_path):
    """A study of one file, whose rows of three methods are three pools without an order."""
    methods = {name: make_rows(name, groups=24, each=1) for name in ("taboo", "hint", "plain")}
    path = tmp_path / "all.jsonl"
    rows = [row | {"method": name, "run": k % 2} for name, own in methods.items() for k, row in enumerate(own)]
    rows.append(rows[0] | {"method": "hint"})  # a text of two pools
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    levels = {"dial": "source", "path": str(path), "levels": {"method": ["taboo", "hint", "plain"]}}
    return {**files(settings), **SMALL, "pools": [levels]}, rows


def test_values_of_a_column_are_pools_and_all_of_them_together_are_one_more(one_file, tmp_path):
    config, rows = one_file
    with open_study(config, out=tmp_path / "run") as flow:
        pools, advice = {level.key: pool.corpus for level, pool in flow.pools.items()}, flow.advice
    assert list(pools) == ["source=taboo", "source=hint", "source=plain", "source=together"]
    for name, pool in pools.items():
        method = name.removeprefix("source=")
        wanted = {row["text"] for row in rows if method in (row["method"], "together")}
        assert set(pool.texts) == wanted and len(pool) == len(wanted)
    assert advice.shapes == () and advice.checks == ()  # nothing is in order
    assert {c.cell.level for c in advice.cells if c.cell.kind == "blend"} == {"taboo", "hint", "plain", "together"}
    mixed = Counter(id_ in set(pools["source=hint"].ids) for id_ in pools["source=together"].ids)
    assert mixed[True] > 40 and mixed[False] > 90


def test_where_takes_rows_by_any_column_and_names_what_is_not_there(one_file, tmp_path):
    config, rows = one_file
    (pool,) = config["pools"]
    plain = {"dial": "d", "level": "a", "path": pool["path"]}
    chosen = {**plain, "where": {"method": ["taboo", "hint"], "run": 1}}
    with open_study({**config, "pools": [chosen]}, out=tmp_path / "run") as flow:
        (kept,) = flow.pools.values()
    assert set(kept.corpus.texts) == {r["text"] for r in rows if r["method"] != "plain" and r["run"] == 1}
    for where, told in (({"method": "tabu"}, "did you mean 'taboo'"), ({"methods": "hint"}, "did you mean 'method'")):
        wrong = {**config, "pools": [{**plain, "where": where}]}
        with pytest.raises(InputError, match=told), open_study(wrong, out=tmp_path / "wrong"):
            pass
    for wrong, said in (
        ({"levels": {}}, "one column"),
        ({"levels": ["a"]}, "one column"),
        ({"level": "a"}, "one of them"),
    ):
        with pytest.raises(ConfigError, match=said), open_study({**config, "pools": [{**pool, **wrong}]}):
            pass


def test_another_split_is_taken_until_something_was_trained(one_file, tmp_path):
    config, _ = one_file
    others = [{**config, "split": {**config["split"], "validation": rows}} for rows in (30, 40, 45)]
    for other in others[:2]:
        with open_study(other, out=tmp_path / "run") as flow:
            assert len(flow.study.split.validation) == other["split"]["validation"]
    with open_study(others[1], out=tmp_path / "run") as flow:
        assert flow.grid
    with pytest.raises(RunFolderMismatch, match="other split"), open_study(others[2], out=tmp_path / "run"):
        pass
    with open_study(others[1], out=tmp_path / "run"):
        pass


@pytest.mark.slow
def test_harmful_rows_make_no_blend_unless_it_is_asked_for(one_file, tmp_path):
    config, rows = one_file
    labels = sorted({row["label"] for row in rows})
    wrong = [row | {"label": labels[labels.index(row["label"]) - 1]} for row in rows]
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong), encoding="utf-8")
    pool = {"dial": "d", "level": "a", "path": str(tmp_path / "wrong.jsonl")}
    # a gain of 45 points is ruled out for every share
    settings = {**config, "pools": [pool], "advice": {"delta": 0.45}, "draws": {**SMALL["draws"], "sampling": 4}}
    folder, card = tmp_path / "run" / "blend", tmp_path / "run" / "blend" / "README.md"
    for asked in (False, True, False):
        result = run_study(settings, out=tmp_path / "run", blend=asked)
        assert result.advice.decision == "do-not-use"
        assert folder.is_dir() == asked == (result.blend is not None)
        assert ("--blend writes" in str(result)) != asked
        assert not asked or "The advice is not to use this blend" in card.read_text(encoding="utf-8")
    open_one = run_study({**config, "draws": {**config["draws"], "generation": 1}}, out=tmp_path / "open")
    assert open_one.advice.decision == "underpowered" and open_one.advice.lean is not None
    assert set(open_one.blend.origins) == {"real", "synthetic"} and "leans to" in str(open_one)
    assert "It is not settled" in (tmp_path / "open" / "blend" / "README.md").read_text(encoding="utf-8")
    used = {level for level in open_one.blend.table["level"].to_pylist() if level}
    assert used == {open_one.advice.lean.cell.level}
