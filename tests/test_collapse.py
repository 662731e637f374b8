"""Training on one's own output: exact laws, warnings, advice, and a chain that goes on after it was killed."""

import json
import re

import numpy as np
import pytest

from command_line import call, refused
from cuvee import run_collapse
from cuvee.collapse import advise, advise_in_theory, find_warning, judge_curated, word_warning
from cuvee.collapse.exact import run_exact
from cuvee.config.collapse import CollapseConfig, best_weight
from cuvee.config.reading import make_config
from cuvee.errors import ConfigError, InputError
from cuvee.records import Course

CHAINS = 2000


def courses_of(model, *regimes, generations=5, chains=CHAINS, **more):
    config = {"model": model, "regimes": regimes, "generations": generations, "chains": chains, **more}
    return run_exact(make_config(config, CollapseConfig))


def assert_near(values, expected):
    """Within three standard errors over chains, at every generation."""
    error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    assert (np.abs(values.mean(axis=1) - expected) <= 3 * error + 1e-12).all()


def test_mean_of_an_unbiased_gaussian():
    replace, accumulate = courses_of({"kind": "gaussian"}, "replace", "accumulate")
    assert_near(replace.values["mean_error"], np.arange(1.0, 7))
    assert_near(accumulate.values["mean_error"], np.cumsum(1 / np.arange(1.0, 7) ** 2))
    assert (replace.expected["mean_error"] == np.arange(1.0, 7)).all()


@pytest.mark.parametrize(("share", "best", "pooled"), [(0.5, 0.618, 0.667), (0.2, 0.390, 0.556)])
def test_weight_of_fresh_rows(share, best, pooled):
    assert best_weight(share) == pytest.approx(best, abs=5e-4)
    limits = {}
    for weight in ("optimum", "pooled"):
        fresh = {"shares": [share], "weight": weight}
        (course,) = courses_of({"kind": "gaussian"}, "fresh", generations=25, fresh=fresh)
        assert_near(course.values["mean_error"][-1:], course.expected["mean_error"][-1])
        limits[weight] = course.expected["mean_error"][-1] * share  # in units of the fresh rows
    assert limits == pytest.approx({"optimum": best, "pooled": pooled}, abs=1e-3)


@pytest.mark.parametrize(
    ("dimension", "rows", "generations"), [(1, 20, 5), (10, 20, 5), pytest.param(100, 110, 2, marks=pytest.mark.slow)]
)
def test_covariance_by_maximum_likelihood_shrinks(dimension, rows, generations):
    model = {"kind": "gaussian", "dimension": dimension, "rows": rows, "estimator": "maximum_likelihood"}
    (course,) = courses_of(model, "replace", generations=generations)
    values = course.values["variance"]
    assert_near(values / values[0], (1 - 1 / rows) ** np.arange(generations + 1.0))


def test_words_agree_more_and_more():
    replace, subsample = courses_of({"kind": "unigram", "rows": 100}, "replace", "accumulate_subsample")
    law = 1 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()
    kept = (1 - 1 / 100) ** np.arange(1.0, 7) * (1 - (law**2).sum())
    assert_near(1 - replace.values["lost_diversity"], kept)
    assert subsample.values["vocabulary"][-1].mean() > replace.values["vocabulary"][-1].mean()


def test_low_temperature_collapses_faster():
    cold, warm = 0.8, 1.25
    found = {t: courses_of({"kind": "gaussian", "temperature": t}, "replace")[0] for t in (cold, warm)}
    for temperature, course in found.items():
        for measure in ("mean_error", "variance"):
            assert_near(course.values[measure], course.expected[measure])
        assert course.expected["variance"] == pytest.approx(temperature ** np.arange(6.0))
    for kind in ("unigram", "bigram"):
        model, chains = {"kind": kind, "vocabulary": 20, "rows": 100}, 50
        left = [
            courses_of({**model, "temperature": t}, "replace", chains=chains)[0].values["vocabulary"][-1].mean()
            for t in (0.5, cold, 1.0)
        ]
        assert left == sorted(left) and left[0] < left[2]


def test_vocabulary_of_pairs_falls_or_is_kept():
    model = {"kind": "bigram", "vocabulary": 20, "rows": 100}
    replace, accumulate = courses_of(model, "replace", "accumulate", chains=50)
    lost = np.diff(replace.values["vocabulary"], axis=0)
    assert (lost <= 0).all() and lost.sum() < 0
    assert (np.diff(accumulate.values["vocabulary"], axis=0) == 0).all()


def test_warnings_and_advice():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (5, 20))
    drift = np.array([0, 0, 0, 1, 2.0])[:, None]
    early = np.array([0, 1, 2, 3, 4.0])[:, None]
    bad = Course(regime="replace", values={"loss": 1 + drift + noise, "mmd": early + noise})
    good = Course(regime="fresh 20%", values={"loss": 1 + noise, "mmd": noise})
    warning = find_warning(bad, "loss", 0.05)
    assert (warning.first, warning.earliest, warning.lead) == ({"loss": 3, "mmd": 1}, ("mmd",), 2)
    assert word_warning(warning) == (
        "replace: shift from the real rows left the interval of generation 0 first, at generation 1, 2 generations "
        "before the loss on held-out real rows."
    )
    assert find_warning(good, "loss", 0.01).first == {"loss": None, "mmd": None}
    told = advise([bad, good], "loss", 0.1, weights={"fresh 20%": 0.39})
    assert told[-1].endswith("keeps it: fresh 20%, which together have the weight 0.390.")
    assert "Nothing here" in advise([bad], "loss", 0.1, weights={})[-1]
    share, weight = map(float, re.search(r"least ([\d.]+)%.*weight ([\d.]+\d)", advise_in_theory(0.1)).groups())
    assert weight / (share / 100) == pytest.approx(1.1, abs=0.01)


def test_a_filter_helps_at_first_and_narrows_what_is_written():
    replace, curated = courses_of({"kind": "gaussian"}, "replace", "curated", chains=200)
    (stricter,) = courses_of({"kind": "gaussian"}, "curated", chains=200, curated={"candidates": 4})
    assert curated.values["mean_error"][1:].mean() < replace.values["mean_error"][1:].mean() / 10
    spread = [course.values["variance"][1].mean() for course in (stricter, curated, replace)]
    assert spread == sorted(spread) and spread[1] < 0.3
    assert (
        "improves to generation 5, and does not turn back by generation 5, while the variance goes from 0.9"
        in judge_curated(curated, "mean_error")
    )
    told = advise([replace, curated], "mean_error", 0.1, weights={})
    assert "to narrow is to collapse too" in told[1] and told[-1].startswith("Nothing here keeps")
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 10))
    for means, told in (([2, 1, 1.5, 1.8], "improves to generation 1, and turns back"), ([1, 2, 3, 4], "no gain")):
        course = Course(regime="curated", values={"loss": np.array(means)[:, None] + noise})
        assert told in judge_curated(course, "loss")


@pytest.mark.slow  # a thousand chains
def test_command(tmp_path, capsys):
    options = ("--out", tmp_path, "--json")
    code, out, _ = call(capsys, "collapse", "--model", "gaussian", *options)
    told = json.loads(out)
    assert (code, told["chains"], len(told["courses"])) == (0, 1000, 5)
    page = (tmp_path / "report.html").read_text()
    assert "The density of the first chain" in page and "NaN" not in page
    assert "Error of the mean" in page and "mean_error" not in page
    again = json.loads(call(capsys, "collapse", tmp_path, "--json")[1])
    assert again["courses"] == told["courses"]
    assert "takes seconds; leave out --plan" in refused(capsys, "collapse", "--model", "gaussian", "--plan")
    assert "valid: gaussian, unigram, bigram" in refused(capsys, "collapse", "--model", "normal")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"kind": "gaussian", "rows": 5, "dimension": 9}}, "needs 2 more"),
        ({"model": {"kind": "bigram"}, "regimes": ["accumulate_subsample"]}, "no text"),
        ({"regimes": ["replace"], "fresh": {"shares": [0.5]}}, "is for the regime fresh"),
        ({"model": {"kind": "unigram"}, "regimes": ["curated"]}, "have no filter"),
        ({"regimes": ["curated"], "curated": {"select": "random"}}, "select is for a model that is trained"),
        ({"curated": {"candidates": 3}}, "is for the regime curated"),
        ({"execute": {"kind": "processes"}}, "is for a model that is trained"),
        ({"fresh": {"shares": [1.0]}}, "should be less than 1"),
    ],
)
def test_wrong_config(change, told):
    with pytest.raises(ConfigError, match=told):
        make_config({"model": {"kind": "gaussian"}, **change}, CollapseConfig)


def test_too_few_rows_for_a_chain(tmp_path):
    rows = [{"prompt": f"prompt {n}", "completion": f"completion {n}"} for n in range(12)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    located = {"real": str(data), "validation": str(data), "text": "prompt", "label": "completion"}
    model = {"kind": "causal", "data": located, "rows": 10, "held_out": 10}
    with pytest.raises(InputError, match="a chain needs 30"):
        run_collapse({"model": model, "regimes": ["fresh"], "generations": 10}, out=tmp_path / "run")
