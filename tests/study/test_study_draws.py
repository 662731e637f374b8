"""Which rows of a pool a draw takes: its own block, or a subsample of all rows at hand; and how many draws are run."""

import json
from dataclasses import asdict

import pytest
import yaml
from counting_encoder import Counting
from test_study_run import files, make_rows, write_pools

from command_line import call
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError, RunFolderError
from cuvee.execute import Silent
from cuvee.mix import assign_blocks
from cuvee.records import Cell, Draw
from cuvee.store import count_finished
from cuvee.study.draws import ChosenDraws, read_draws
from cuvee.study.grids import choose_real
from cuvee.study.opening import open_study
from cuvee.study.planning import plan_study
from cuvee.study.prepare import FRESH
from cuvee.study.running import Mixing, make_mixing

REAL = Corpus.from_rows([{"text": f"real {y} {i}", "target": y} for y in "ab" for i in range(4)])
MADE = Corpus.from_rows([{"text": f"made {y} {i}", "target": y} for y in "ab" for i in range(60)], origin="synthetic")
POOL = assign_blocks(MADE, blocks=[*range(FRESH, FRESH + 3), *range(3)], rows={"a": 8, "b": 8}, seed=0)
BLOCK = dict(zip(POOL.ids, POOL.blocks.tolist(), strict=True))


def mix(share, draw, **cell):
    """Ids of the synthetic rows of a blend."""
    made = Cell(kind="blend", dial="d", level="x", share=share, rows_per_label=4, **cell)
    mixing = Mixing(real={(0, 4): REAL}, pools={"d=x": POOL}, regime="augment", seed=0)
    blend = mixing.mix(made, draw).corpus
    return {i for i, origin in zip(blend.ids, blend.origins, strict=True) if origin == "synthetic"}


def generation(number):
    return Draw(generation=number, sampling=0, training=0)


def subsample(number):
    return Draw(generation=0, sampling=number, training=0)


@pytest.mark.parametrize("labels", ["ab", "ba"])
def test_a_blend_has_its_share_in_whatever_order_labels_come(labels):
    real = Corpus.from_rows([{"text": f"real {y} {i}", "target": y} for y in labels for i in range(3)])
    cell = Cell(kind="blend", dial="d", level="x", share=0.5, rows_per_label=3, scope="this pool")
    mixing = Mixing(real={(0, 3): real}, pools={"d=x": POOL}, regime="replace", seed=0)
    assert mixing.mix(cell, subsample(0)).composition.share == 0.5  # 3 of 6 rows: 2 of one label, 1 of the other


@pytest.mark.parametrize("draw", [0, 2, FRESH, FRESH + 2])
def test_a_draw_of_the_recipe_takes_its_own_block_alone(draw):
    assert {BLOCK[i] for i in mix(0.6, generation(draw))} == {draw}
    with pytest.raises(InputError, match="synthetic rows were asked"):
        mix(0.9, generation(draw))


def test_subsamples_of_this_pool_are_nested_and_leave_the_confirmations_rows_alone():
    small, large = (mix(share, subsample(3), scope="this pool") for share in (0.6, 0.8))
    assert small < large and len({BLOCK[i] for i in large}) > 1
    assert mix(0.6, subsample(4), scope="this pool") != small
    every = {i for i, block in BLOCK.items() if block < FRESH}
    # more than there is takes what there is; all of it is the same in every draw
    assert mix(0.99, subsample(0), scope="this pool") == every
    assert mix(0.9, subsample(1), scope="this pool", whole=True) == every


@pytest.fixture
def auto(settings, tmp_path):
    """A study of two files that leaves its draws open."""
    write_pools(tmp_path, {f"{name}.jsonl": make_rows(name, groups=9, each=1) for name in ("low", "high")})
    config = files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    return {**config, "draws": "auto", "mix": {"amounts": ["1x", "all"], "shape_share": 0.5}}


def counted(flow):
    """Draws of the blends in both scopes, and of real rows alone."""
    cells = {}
    for outcome in flow.grid:
        cells.setdefault(outcome.cell, set()).add((outcome.draw.generation, outcome.draw.sampling))
    blends = {len(draws) for cell, draws in cells.items() if cell.kind == "blend" and cell.scope == "this pool"}
    blocks = {len(draws) for cell, draws in cells.items() if cell.scope == "the recipe"}
    return blends, blocks, {len(draws) for cell, draws in cells.items() if cell.dial is None}


@pytest.mark.slow  # with the others of its kind: it runs three studies
def test_draws_left_open_are_as_many_as_time_and_rows_allow_and_given_ones_stay(auto, tmp_path, capsys):
    with open_study(auto, out=tmp_path / "long") as flow:
        # other real rows go with each of them, so all rows of a pool, and real rows alone, are drawn as often
        assert counted(flow) == ({24}, {3}, {24})  # three blocks of 9 rows in a file of 27
        assert flow.study.draws.confirm == 12
    out = call(capsys, "status", tmp_path / "long")[1]
    assert "24 subsamples of each pool" in " ".join(out.split())
    short = {**auto, "draws": {"time": "0.01s", "sampling": "auto"}}
    with open_study(short, out=tmp_path / "short") as flow:
        assert counted(flow) == ({4}, {3}, {4}) and flow.study.draws.confirm == 4
    # with these real rows alone, what is the same in every draw is trained once by the probe
    given = {**auto, "draws": {"time": "0.01s", "sampling": 6, "generation": 2, "real": 1}}
    with open_study(given, out=tmp_path / "given") as flow:
        assert counted(flow) == ({6, 1}, {2}, {1}) and flow.study.draws.confirm == 4


def test_numbers_in_the_run_folder_hold_whatever_the_time_is_until_another_is_asked(auto, tmp_path):
    run, auto = tmp_path / "run", {**auto, "draws": {"real": 1}}
    run.mkdir()
    chosen = ChosenDraws(subsamples=7, generation=2, confirm=5, time=600.0, draw=100.0, confirmation=1.0)
    (run / "draws.json").write_text(json.dumps(asdict(chosen)))
    with open_study(auto, out=run) as flow:
        assert counted(flow) == ({7, 1}, {2}, {1}) and flow.study.draws.confirm == 5
        assert read_draws(run) == chosen
    told, listener = [], Silent()
    listener.noted = told.append
    longer = {**auto, "draws": {"time": "15m", "real": 1}}
    with open_study(longer, out=run, listener=listener) as flow:  # set against what was timed
        assert flow.study.draws.subsamples == 9 and flow.study.draws.confirm == 12
        assert counted(flow)[0] == {9, 1}
    assert [note for note in told if note.startswith("draws: 9 subsamples") and "as many as 15m allow" in note]
    (run / "draws.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"draws\.json: damaged .*; delete it"), open_study(auto, out=run) as flow:
        _ = flow.grid


class StopAfter(Silent):
    """Stops the run after so many trials, as a user does."""

    def __init__(self, trials):
        self.left = trials

    def advanced(self, stage, _done, _total):
        self.left -= stage == "train"
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("trials", [3, 20])  # before the numbers are chosen, and after
def test_a_study_that_is_stopped_ends_with_the_same_trials(auto, tmp_path, trials):
    auto = {**auto, "draws": {"time": "0.01s"}}
    with open_study(auto, out=tmp_path / "whole") as flow:
        whole = {(o.cell, o.draw) for o in flow.grid}
    with pytest.raises(KeyboardInterrupt), open_study(auto, out=tmp_path / "cut", listener=StopAfter(trials)) as flow:
        _ = flow.grid
    chosen = read_draws(tmp_path / "cut")
    assert (chosen is None) == (trials == 3)
    with open_study(auto, out=tmp_path / "cut") as flow:
        assert {(o.cell, o.draw) for o in flow.grid} == whole
        assert chosen is None or read_draws(tmp_path / "cut") == chosen
    assert [count_finished(tmp_path / name) for name in ("cut", "whole")] == [len(whole)] * 2


def test_the_plan_says_how_many_draws_and_between_which_numbers(auto, tmp_path, capsys):
    plan = plan_study(auto)
    (said,) = [note for note in plan.notes if note.startswith("draws: ")]
    assert "24 subsamples of each pool, up to 12 blocks" in said and "24 choices of real rows" in said
    assert "chooses at least 4 subsamples" in said
    fewer = plan_study({**auto, "draws": {"time": "0.01s"}})
    assert fewer.trials[0].trials < plan.trials[0].trials and fewer.power[0].draws == 4
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(auto), encoding="utf-8")
    assert "24 subsamples of each pool" in " ".join(call(capsys, "plan", path)[1].split())


@pytest.mark.parametrize(
    ("draws", "why"),
    [
        ({"time": "10 min"}, "time is '10 min'; give seconds, minutes or hours"),
        ({"time": "5m", "generation": 2, "sampling": 2, "confirm": 2}, "time has no effect where"),
    ],
)
def test_a_time_that_says_nothing_is_refused(auto, draws, why):
    with pytest.raises(ConfigError, match=why):
        plan_study({**auto, "draws": draws})


@pytest.mark.slow
def test_each_draw_has_other_real_rows_and_baselines_pair_on_them(auto, tmp_path):
    config = {**auto, "draws": {"sampling": 4, "generation": 2, "confirm": 3, "real": 2}}
    with open_study(config, out=tmp_path / "run") as flow:
        study, outcomes, advice = flow.study, flow.grid, flow.advice
        mixing = make_mixing(study, flow.corpora, range(4))
        train = set(study.split.at_hand.texts)
    rows = {}
    for outcome in outcomes:
        blend = mixing.mix(outcome.cell, outcome.draw).corpus
        real = {text for text, origin in zip(blend.texts, blend.origins, strict=True) if origin == "real"}
        assert outcome.draw.real == max(outcome.draw.sampling, outcome.draw.generation) % 2 and real <= train
        if real:
            rows.setdefault(outcome.draw.real, set()).add(frozenset(real))
    assert [len(found) for found in rows.values()] == [1, 1] and rows[0] != rows[1]
    assert rows[0] == {frozenset(study.train.texts)} and len(next(iter(rows[1]))) == len(study.train)
    # the choices are the draws: subsamples that share one are averaged
    draws = {(s.cell.kind, s.cell.whole): s.draws for s in advice.cells if s.cell.scope == "this pool"}
    assert set(draws.values()) == {2} and {gain.draws for gain in advice.best.gains} == {2}
    fresh = {
        item.real for item in (choose_real(study, Draw(generation=0, sampling=FRESH + k, training=0)) for k in (0, 1))
    }
    assert fresh == {FRESH, FRESH + 1} and "chosen 2 times from those at hand" in advice.scope
    with open_study({**config, "draws": {**config["draws"], "confirm": 2}}, out=tmp_path / "run") as flow:
        assert flow.confirmation.looks == (3,)  # fewer draws than a look had: that look is read again
    with open_study({**config, "draws": {**config["draws"], "real": 1}}, out=tmp_path / "one") as flow:
        assert {o.draw.real for o in flow.grid} == {0} and "these 9 real rows (3 a label of 3)" in flow.advice.scope


def test_choices_of_real_rows_that_there_are_not_are_refused(auto, settings):
    few = {**auto, "split": {**auto["split"], "rows_per_label": 15}, "draws": {"real": 2}}
    with pytest.raises(ConfigError, match=r"draws\.real is 2, and fewer real rows than twice"):
        plan_study(few)
    with pytest.raises(ConfigError, match=r"draws\.real is 2, but an LLM writes from one choice"):
        plan_study({**settings, "draws": {"real": 2}})


@pytest.mark.trust("counting_encoder")
def test_only_rows_that_cells_can_hold_are_embedded_and_they_are_those_of_a_pool_judged_in_full(
    settings, headlines, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path))
    real = [json.loads(line) for line in headlines.read_text().splitlines()]
    near = [{**row, "text": f"{row['text']} x", "group": row["text"]} for row in real]  # 90 of them leak
    made = make_rows("low", groups=300, each=1) + near
    write_pools(tmp_path, {"low.jsonl": made})
    config = files(settings, low=tmp_path / "low.jsonl") | {
        "encoder": "counting_encoder:Counting", "draws": {"sampling": 3, "confirm": 2},
        "mix": {"amounts": ["1x", "3x"], "shape_share": 0.5},
    }  # fmt: skip
    Counting.seen.clear()
    with open_study(config, out=tmp_path / "run") as flow:
        planned = flow.advice and flow.outcomes
        embedded = Counting.seen & {row["text"] for row in made}
        whole = config | {"mix": {"amounts": ["1x", "3x", "all"], "shape_share": 0.5}}
        with open_study(whole, out=tmp_path / "all") as other:
            pools, both = (flow.pools, other.pools), (flow.corpora, other.corpora)
        mixings = [make_mixing(flow.study, corpora, {o.draw.real for o in planned}) for corpora in both]
        blends = [[mixing.mix(o.cell, o.draw).corpus for o in planned] for mixing in mixings]
    held = {text for blend in blends[0] for text in blend.texts} & {row["text"] for row in made}
    taken = [len(pool.rejected) for found in pools for pool in found.values()]
    assert 0 < taken[0] < taken[1] == 90
    most = 3 * 9 * (3 + 2)  # 9 rows of 3 labels in 3 subsamples and 2 of the confirmation, of 1,050 rows
    assert held < embedded and len(embedded) <= most + taken[0]
    assert [blend.ids for blend in blends[0]] == [blend.ids for blend in blends[1]]
