"""Adaptive studies: a part of the trials, the same ones however often the study was stopped."""

from collections import Counter

import pytest
from test_study_kill import finished_trials
from test_study_run import counted, files, make_rows, write_pools

from cuvee.errors import ConfigError, InputError
from cuvee.execute import Silent
from cuvee.recommend.search import LEAST_DRAWS
from cuvee.records import TrialFailure
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study

SHARES = [0.1, 0.25, 0.4, 0.5]


@pytest.fixture
def ready(settings, tmp_path):
    """A study on ready-made pools of four levels: no LLM, all its time is trials."""
    names = ("a", "b", "c", "d")
    write_pools(tmp_path, {f"{n}.jsonl": make_rows(n, groups=12 + 4 * k) for k, n in enumerate(names)})
    made = files(settings, **{name: tmp_path / f"{name}.jsonl" for name in names})
    return {
        **made,
        "mix": {"shares": SHARES, "shape_share": 0.5},
        "draws": {"generation": 3, "sampling": 3, "training": 1, "confirm": 0},
        "search": {"kind": "adaptive", "budget": 0.5, "batch": 2},
    }


def blends(outcomes) -> list:
    return [outcome for outcome in outcomes if outcome.cell.kind == "blend"]


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ({"budget": 0.5}, "budget has no effect with kind grid"),
        ({"batch": 2}, "batch has no effect with kind grid"),
        ({"kind": "adaptive", "budget": 0.1}, r"does not pay for the shape test; give at least 0\.5"),
        ({"kind": "adaptive", "budget": 2.5}, "budget is 2.5"),
        ({"kind": "adaptiv"}, "did you mean 'adaptive'"),
    ],
)
def test_a_search_that_cannot_be_or_would_be_ignored_is_refused(settings, search, why):
    with pytest.raises(ConfigError, match=why):
        plan_study({**settings, "search": search})


def test_a_budget_in_trials_that_does_not_pay_for_the_shape_test_is_refused(settings, tmp_path, local):
    short = {**settings, "search": {"kind": "adaptive", "budget": 6}}
    with pytest.raises(ConfigError, match=r"6 trials .* takes 10; raise it to 10"):
        run_study(short, out=tmp_path / "run")
    assert not local.bodies


def test_the_plan_counts_what_the_budget_allows(settings):
    planned = plan_study({**settings, "search": {"kind": "adaptive", "budget": 0.6}}).trials[0].trials
    every = plan_study(settings).trials[0].trials
    # 5 levels x 2 shares x 2 draws are blends, each trained once: the probe has one optimum
    assert every - planned == 20 - 12
    assert plan_study({**settings, "search": {"kind": "adaptive", "budget": 15}}).trials[0].trials == every - 5


@pytest.mark.slow
def test_an_adaptive_study_spends_its_budget_and_says_what_it_favours(ready, tmp_path):
    with open_study(ready, out=tmp_path / "run") as flow:
        outcomes, advice = flow.grid, flow.advice
    found = blends(outcomes)
    # 4 pools, 3 subsamples at each share and 3 blocks at the tested one
    assert len(found) == 4 * (len(SHARES) + 1) * 3 // 2 == len(set((o.cell, o.draw) for o in found))
    sliced = Counter(o.cell for o in found if o.cell.share == 0.5)
    assert len(sliced) == 4 * 2 and set(sliced.values()) == {3}
    assert len(Counter(o.cell.share for o in found)) > 1
    draws = {(o.cell, o.draw) for o in found}
    assert advice.best is not None
    assert sum(cell == advice.best.cell for cell, _ in draws) >= LEAST_DRAWS
    assert advice.shapes[0].draws == 3


class Interrupted(Silent):
    """Ctrl-C after so many trials."""

    def __init__(self, after: int) -> None:
        self.after = after

    def advanced(self, stage: str, done: int, total: int) -> None:
        if stage == "train" and done >= self.after:
            assert done < total
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_adaptive_study_asks_the_same_and_ends_in_the_same_bytes(ready, tmp_path):
    run_study(ready, out=tmp_path / "whole")
    for after in (20, 43, 45):  # within the first round, and within two later ones
        with pytest.raises(KeyboardInterrupt):
            run_study(ready, out=tmp_path / "cut", listener=Interrupted(after))
    run_study({**ready, "execute": {"kind": "processes", "workers": 2}}, out=tmp_path / "cut")  # nor where they run
    assert counted(tmp_path / "cut") == counted(tmp_path / "whole")
    assert finished_trials(tmp_path / "cut").keys() == finished_trials(tmp_path / "whole").keys()


@pytest.mark.trust("slow_trainer")
@pytest.mark.slow
def test_a_level_whose_trials_fail_is_left_and_the_study_goes_on(ready, tmp_path):
    config = {**ready, "train": {**ready["train"], "trainer": "slow_trainer:fail_on_level_d"}}
    with open_study(config, out=tmp_path / "run") as flow:
        outcomes, advice = flow.grid, flow.advice
    failed = Counter(o.cell for o in outcomes if isinstance(o, TrialFailure))
    assert failed and {cell.level for cell in failed} == {"d"}
    assert all(count <= 3 for count in failed.values())
    assert sum(cell.kind == "blend" and cell.share != 0.5 for cell in failed.elements()) < 3 * 3
    assert advice.best is not None and advice.best.cell not in failed and advice.failures == sum(failed.values())


def test_rows_that_a_label_does_not_have_are_told_before_anything_is_asked(settings, tmp_path, local):
    with (
        pytest.raises(InputError, match=r"split.rows_per_label \[400\]: .* the largest few-shot size is"),
        open_study({**settings, "split": {**settings["split"], "rows_per_label": ["all", 400]}}, out=tmp_path / "a"),
    ):
        pass
    assert not local.bodies
