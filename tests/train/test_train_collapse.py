"""A language model that is trained on what it wrote: decodings, regimes, both checkpoints, going on after a kill."""

import json
import os

import pytest
from test_train_causal import save_tiny

from cuvee import run_collapse


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collapse")
    rows = [{"prompt": f"one two {n}", "completion": f"three {n % 7} four five {n % 5}"} for n in range(40)]
    for name, part in (("real", rows[:28]), ("held", rows[28:])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {"real": str(folder / "real.jsonl"), "validation": str(folder / "held.jsonl")}
    return {
        "model": {
            "kind": "causal", "data": {**data, "text": "prompt", "label": "completion"}, "rows": 8, "held_out": 10,
            "steps": 4, "evaluations": 2, "max_tokens": 6, "encoder": "hashing",
            "settings": {"model": str(save_tiny(folder / "model")), "batch_size": 4, "max_length": 64},
            "decodings": [{}, {"temperature": 0}, {"temperature": 0, "beams": 2}],
        },
        "regimes": ["replace", "accumulate", "accumulate_subsample", "fresh"], "generations": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_a_chain_goes_on_where_it_was(config, tmp_path):
    whole = run_collapse(config, out=tmp_path)
    assert len(whole.courses) == 12
    course = whole.courses[0]
    assert (course.values["best_loss"] <= course.values["last_loss"]).all()
    greedy, beams = (next(c for c in whole.courses if c.decoding == name) for name in ("greedy", "2 beams"))
    assert greedy.samples != course.samples and len(beams.samples) == 2
    files = sorted((tmp_path / "pools").iterdir())
    before = {file: os.stat(file).st_mtime_ns for file in files}
    files[0].unlink()
    again = run_collapse(config, out=tmp_path)
    assert [c.samples for c in again.courses] == [c.samples for c in whole.courses]
    changed = [file for file in files if os.stat(file).st_mtime_ns != before[file]]
    assert files[0] in changed and len(changed) <= 3
