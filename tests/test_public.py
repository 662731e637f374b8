"""What users may rely on: the exported names, what importing costs, the law of the house."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cuvee

ROOT = Path(__file__).resolve().parents[1]

NAMES = [
    "Advice", "Blend", "Comparison", "Corpus", "CuveeError", "EmbeddedLLM", "Encoder", "Endpoint", "Estimate",
    "ExampleScores", "Ledger", "LockedTest", "Measurement", "ParaphraseDial", "Sampling", "SamplingDial", "Scores",
    "Split", "StudyResult", "TopicsDial", "Trial", "TrialFailure", "__version__", "compare_corpora",
    "compare_measurements", "evaluate_model", "generate_corpus", "load_corpus", "load_encoder", "load_predictor",
    "measure_corpus", "measure_vectors", "mix_corpora", "recommend_mixture", "run_study", "score_examples",
    "split_corpus", "train_model", "trust_modules", "write_corpus",
]  # fmt: skip


def test_exported_names_are_pinned():
    assert cuvee.__all__ == NAMES
    assert all(hasattr(cuvee, name) for name in NAMES)


def test_import_loads_no_heavy_package():
    code = "import sys, json, cuvee; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    heavy = {"torch", "transformers", "ray", "datasets", "sklearn", "sentence_transformers", "altair", "xllamacpp"}
    assert not heavy & set(loaded)


def test_every_public_error_is_a_cuvee_error():
    import cuvee.errors as errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) >= 12
    assert all(issubclass(kind, cuvee.CuveeError) for kind in kinds)
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in kinds)


def test_version_is_in_the_changelog_or_unreleased():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert cuvee.__version__ in text or "## Unreleased" in text


@pytest.mark.parametrize("module", ["cuvee.generate", "cuvee.measure", "cuvee.train", "cuvee.recommend"])
def test_rooms_name_what_they_give(module):
    found = __import__(module, fromlist=["__all__"])
    assert sorted(found.__all__, key=str.casefold) and all(hasattr(found, n) for n in found.__all__)
