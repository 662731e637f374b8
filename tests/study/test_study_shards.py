"""A folder of shards gives the study that one file gives, whatever is held in memory at a time."""

import json

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from cuvee.encoders import models
from cuvee.study.demo import read_headlines
from cuvee.study.opening import run_study

pytestmark = pytest.mark.slow

LABELS = ("business", "politics", "sports")


@pytest.fixture
def rows(headlines):
    """Headlines of which some repeat another, and some are held out."""
    real = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    known = {row["text"] for row in real}
    found = [{"text": t, "label": y} for t, y in read_headlines() if y in LABELS and t not in known]
    found = [row for label in LABELS for row in [r for r in found if r["label"] == label][:100]]
    return [*found, *real, *found[:20], {"text": "Of another label", "label": "tech"}]


def run(settings, path, out, **pool):
    kept = {key: value for key, value in settings.items() if key not in ("dials", "generator")}
    filters = [{"name": "dedupe", "near": 0.9}, {"name": "leak"}, {"name": "agreement", "top": 0.9}]
    config = {
        **kept, "generator": {"kind": "files"}, "pools": [{"path": str(path), **pool}], "filters": filters,
        "mix": {"shares": [0.5, 0.75], "shape_share": 0.75},
    }  # fmt: skip
    run_study(config, out=out)
    made = [*(out / "pools").iterdir(), *(out / "measurements").iterdir(), out / "advice.json"]
    return {path.name: path.read_bytes() for path in [*made, out / "blend" / "train.parquet"]}


def test_shards_of_unequal_sizes_in_small_batches_give_the_same_bytes_as_one_file(
    settings, rows, tmp_path, monkeypatch
):
    whole, shards = tmp_path / "whole.parquet", tmp_path / "shards"
    pa_parquet.write_table(pa.Table.from_pylist(rows), whole)
    shards.mkdir()
    for number, (start, end) in enumerate([(0, 7), (7, 8), (8, 300), (300, len(rows))]):
        pa_parquet.write_table(pa.Table.from_pylist(rows[start:end]), shards / f"part-{number}.parquet")
    pool = {"dial": "select", "select": {"metric": "log_det", "levels": 2}}
    expected = run(settings, whole, tmp_path / "one", **pool)
    assert len(expected) == 7
    monkeypatch.setattr(models, "BATCH", 37)
    monkeypatch.setattr(models, "MAPPED_BYTES", 1)
    assert run(settings, shards, tmp_path / "many", **pool) == expected
