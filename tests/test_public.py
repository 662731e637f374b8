"""What users may rely on: the exported names, what importing costs, the law of the house."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cuvee

ROOT = Path(__file__).resolve().parents[1]

NAMES = [
    "Advice", "Blend", "CollapseResult", "Comparison", "Corpus", "CuveeError", "EmbeddedLLM", "Encoder", "Endpoint",
    "Estimate", "ExampleScores", "Finding", "Ledger", "LockedTest", "Measurement", "ParaphraseDial", "RowSelector",
    "Sampling", "SamplingDial", "Scores", "Split", "StudyResult", "TopicsDial", "Trial", "TrialFailure",
    "__version__", "compare_corpora", "evaluate_model", "generate_corpus", "load_corpus", "load_encoder",
    "load_predictor", "measure_corpus", "measure_vectors", "mix_corpora", "plot_advice", "plot_measurements",
    "recommend_mixture", "run_collapse", "run_study", "score_examples", "split_corpus", "train_model",
    "train_winner", "trust_modules", "write_corpus",
]  # fmt: skip


def test_exported_names_are_pinned():
    assert cuvee.__all__ == NAMES
    assert all(hasattr(cuvee, name) for name in NAMES)
    stub = Path(cuvee.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert sorted(line.split(" as ")[1] for line in stub.splitlines() if line.startswith("from ")) == NAMES


HEAVY = {
    "torch", "transformers", "ray", "datasets", "sklearn", "scipy", "pandas", "aiohttp", "altair", "vl_convert",
    "sentence_transformers", "xllamacpp", "pydantic", "pyarrow", "numpy",
}  # fmt: skip


def loaded_by(code):
    """Packages and rooms that a fresh python has after some code."""
    code = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(done.stderr)
    return {name.split(".")[0] for name in modules}, {name.split(".")[1] for name in modules if name[:6] == "cuvee."}


@pytest.mark.parametrize("code", ["import cuvee", "from cuvee.cli.app import run_cli; run_cli(['--help'])"])
def test_beginning_loads_no_heavy_package(code):
    packages, rooms = loaded_by(code)
    assert not HEAVY & packages
    assert rooms <= {"_version", "characters", "cli", "errors"}


@pytest.mark.parametrize(
    ("commands", "idle"),
    [
        (("measure", "compare"), {"study", "train", "generate", "report", "recommend", "config"}),
        (("ledger",), {"study", "train", "measure", "mix", "config"}),
        (("generate", "prompts", "doctor"), {"recommend", "collapse", "scipy"}),
        (("split",), {"study", "train", "generate", "config"}),
        (("train",), {"study", "generate", "config"}),
    ],
)
def test_a_command_loads_no_room_that_it_does_not_run(commands, idle):
    packages, rooms = loaded_by(
        f"from cuvee.cli.app import run_cli; [run_cli([command, '--help']) for command in {commands}]"
    )
    assert not idle & (rooms | packages)
    assert not {"torch", "transformers", "pandas", "altair", "vl_convert", "jinja2", "sklearn"} & packages


def test_a_generating_client_loads_no_package_that_it_does_not_use():
    packages, _ = loaded_by("from cuvee import Endpoint, Ledger, generate_corpus")
    assert HEAVY & packages == {"aiohttp", "numpy", "pyarrow"}


def test_every_command_is_there_and_has_one_line_of_help(capsys):
    from cuvee.cli.app import COMMANDS, run_cli

    for name, (_, line, _) in COMMANDS.items():
        assert run_cli([name, "--help"]) == 0
        assert f"Usage: cuvee {name} " in capsys.readouterr().out
        assert len(line) <= 56 and line.endswith("."), f"{name}: cuvee --help would cut it off"


def test_public_names_are_found_by_dir_and_others_refused():
    assert set(NAMES) <= set(dir(cuvee))
    with pytest.raises(AttributeError, match="no attribute 'measure_corpse'"):
        _ = cuvee.measure_corpse


def test_every_public_error_is_a_cuvee_error():
    import cuvee.errors as errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    kinds.remove(errors.InputWarning)
    assert len(kinds) >= 12
    assert all(issubclass(kind, cuvee.CuveeError) for kind in kinds)
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in kinds)


def test_version_is_in_the_changelog_or_unreleased():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert cuvee.__version__ in text or "## Unreleased" in text
