"""Everything that can load code, with a hostile example each: docs/security.md names these tests."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from command_line import call, refused
from cuvee import load_encoder, load_predictor, train_model, trust_modules
from cuvee.config.reading import read_config
from cuvee.corpus import Corpus, load_corpus, load_vectors
from cuvee.encoders import HashingEncoder
from cuvee.errors import ConfigError, CuveeError, InputError
from cuvee.execute import Terms, open_executor
from cuvee.generate.prompts import load_prompts
from cuvee.registry import Kind, resolve_name

OWN = """
from cuvee.encoders import HashingEncoder
from cuvee.generate.dials import SamplingDial

open("PWNED", "w").close()

class Mine(HashingEncoder): pass
class Dial(SamplingDial): pass
"""
ROWS = [{"text": f"{'good' if i % 2 else 'bad'} text {i}", "label": "ab"[i % 2]} for i in range(60)]


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("PWNED"),))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with rows, a model, and a module of the user's own that leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_code.py").write_text(OWN, encoding="utf-8")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    yield tmp_path
    sys.modules.pop("own_code", None)


def study(**changes) -> Path:
    config = {
        "data": {"real": "rows.jsonl"}, "encoder": "hashing", "split": {"rows_per_label": 4},
        "generator": {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
        "dials": [{"name": "sampling"}],
    }  # fmt: skip
    Path("study.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    return Path("study.yaml")


SAMPLING = {"name": "sampling"}
FILES = {
    "generator": {"kind": "files"},
    "pools": [{"dial": "d", "level": "1", "path": "rows.jsonl"}],
    "dials": [],
    "draws": {"generation": 2},
}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("dials.1: dial", {"dials": [{"name": "sampling"}, {"name": "own_code:Dial"}]}),
        ("dials.0: dial", {"dials": [{"name": "combined", "first": {"name": "own_code:Dial"}, "second": SAMPLING}]}),
        ("train: trainer", {"train": {"trainer": "own_code:Dial"}}),
        ("train: loss", {"train": {"loss": "own_code:Dial"}}),
        ("train.check: trainer", {"train": {"check": {"trainer": "own_code:Dial"}}}),
        ("encoder", {"encoder": "own_code:Mine"}),
        ("filter", {**FILES, "filters": [{"name": "leak"}, {"name": "own_code:Dial"}]}),
        ("dials.0: metric", {"dials": [{"name": "sampling", "target": {"metric": "own_code:Dial", "value": 3}}]}),
    ],
)  # fmt: skip
def test_a_study_runs_no_code_of_its_own_choice(capsys, key, changes):
    said = refused(capsys, "run", study(**changes))
    assert said.startswith(f"error: {key} 'own_code:") and "allow it with --trust own_code" in said
    assert not Path("PWNED").exists()


def test_a_cluster_of_somebody_elses_is_not_asked(capsys):
    said = refused(capsys, "run", study(execute={"kind": "ray", "address": "127.0.0.1:9"}))
    assert said.startswith("error: execute.address '127.0.0.1:9'") and "--trust ray" in said


def test_a_program_that_a_study_names_is_not_run(capsys):
    said = refused(capsys, "run", study(train={"trainer": "command", "command": "touch PWNED {folder}"}))
    assert said.startswith("error: train.command 'touch PWNED {folder}'") and "--trust command" in said
    assert not Path("PWNED").exists()


OPENING = (
    "run", "plan", "generate", "measure", "train", "recommend", "report",
    "evaluate", "predict", "compare", "select", "split", "status", "ledger",
)  # fmt: skip


@pytest.mark.parametrize("command", OPENING)
def test_every_command_that_opens_a_study_a_run_folder_or_a_model_may_be_told_whom_to_trust(capsys, command):
    assert "--trust MODULE" in call(capsys, command, "--help")[1]


@pytest.mark.parametrize("command", [*OPENING[:7]])
def test_what_is_trusted_is_so_for_one_command_and_never_by_the_study_itself(capsys, command):
    file = study(dials=[{"name": "own_code:Dial"}], encoder="own_code:Mine")
    assert "not trusted" in refused(capsys, command, file) and not Path("PWNED").exists()
    code, _, err = call(capsys, command, file, "--trust", "no_such", "--trust", "own_code")
    assert "not trusted" not in err and Path("PWNED").exists(), (code, err)  # the endpoint is not there
    Path("PWNED").unlink()
    assert "not trusted" in refused(capsys, command, file)
    assert "unknown key 'trust'" in refused(capsys, command, study(trust=["own_code"]))


@pytest.fixture
def model(place):
    corpus = load_corpus("rows.jsonl")
    train_model(corpus, encoder=HashingEncoder()).save(place / "model")
    return place / "model"


@pytest.mark.parametrize("encoder", ["os:abort", "own_code:Mine", "owner/model", "model", "/etc", ""])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_model_folder_names_built_in_encoders_only(capsys, model, encoder, command):
    file = model / "predictor.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["extra"]["encoder"] = encoder
    told["settings"] |= {"loss": "own_code:Dial", "trainer": "own_code:Dial"}
    file.write_text(json.dumps(told), encoding="utf-8")
    out = ("--out", "out.csv") if command == "predict" else ()
    said = refused(capsys, command, model, "rows.jsonl", *out, "--trust", "own_code", "--trust", "os")
    assert f"predictor.json: encoder is {encoder!r}; a model folder may name minilm or hashing only" in said
    assert not Path("PWNED").exists()
    code, *_ = call(capsys, command, model, "rows.jsonl", *out, "--encoder", "hashing")
    assert code == 0 and not Path("PWNED").exists()


def test_an_encoder_of_ones_own_is_given_and_trusted_on_the_command_line(capsys, model):
    given = ("predict", model, "rows.jsonl", "--out", "out.csv", "--encoder")
    assert "not trusted" in refused(capsys, *given, "own_code:Mine")
    assert "not on 'hashing'" in refused(capsys, *given, "own_code:Mine", "--trust", "own_code")  # other code
    with trust_modules("own_code"):
        train_model(load_corpus("rows.jsonl"), encoder=load_encoder("own_code:Mine")).save(model)
    assert call(capsys, *given, "own_code:Mine", "--trust", "own_code")[0] == 0
    with pytest.raises(ConfigError, match="it must be a class with the methods of"), trust_modules("collections"):
        load_encoder("collections:Counter")


def save(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def test_pickles_in_arrays_and_weights_are_not_read(model):
    np.save("v.npy", np.array([[Bomb()]]), allow_pickle=True)
    np.savez(model / "probe.npz", weights=np.array([Bomb()]), bias=np.array([Bomb()]))
    for read in (lambda: load_vectors("v.npy"), lambda: load_predictor(model)):
        with pytest.raises(InputError, match=r"v\.npy cannot be loaded|probe\.npz cannot be loaded"):
            read()
    torch = pytest.importorskip("torch")
    from cuvee.train.loop import read_checkpoint

    Path("c").mkdir()
    torch.save({"key": Bomb()}, "c/checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be loaded \(its weights would run code\)"):
        read_checkpoint(Path("c/checkpoint.pt"), "k")
    assert not Path("PWNED").exists()


def remote(folder: Path) -> str:
    """A model folder of each kind, whose files name code that lies in it."""
    folder.mkdir()
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")
    code = {name: "own_code.Mine" for name in names}
    (folder / "own_code.py").write_text(OWN, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": code}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own_code.Mine", None]}}))
    return str(folder)


@pytest.mark.parametrize("modules", [False, True])
def test_a_model_folder_runs_no_code_that_lies_in_it(place, monkeypatch, modules):
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers asks whoever sits there
    monkeypatch.setenv("HF_MODULES_CACHE", str(place / "modules"))
    folder = remote(place / "hostile")
    if modules:
        listed = [{"idx": 0, "name": "0", "path": "", "type": "own_code.Mine"}]
        Path(folder, "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    from cuvee.generate.transformers_llm import TransformersLLM
    from cuvee.train import TrainSettings

    corpus = load_corpus("rows.jsonl")
    pairs = Corpus.from_rows([{"text": f"q {i}", "target": f"p {i}"} for i in range(4)], task="retrieval")
    writing = Corpus.from_rows([{"text": f"q {i}", "target": f"p {i}"} for i in range(4)], task="generation")

    def tune(trainer, rows):
        train_model(rows, settings=TrainSettings(trainer=trainer, model=folder, device="cpu", steps=1))

    for read in (
        lambda: load_encoder(folder).encode(["x"]),
        lambda: tune("encoder", corpus),
        lambda: tune("retriever", pairs),
        lambda: tune("causal", writing),
        lambda: TransformersLLM(folder).__enter__(),
    ):
        with pytest.raises(CuveeError) as info:
            read()
        assert "\n" not in str(info.value) and "hostile" in str(info.value)
    assert not Path("PWNED").exists()


def test_weights_that_are_pickles_are_read_as_weights_only(place):
    transformers = pytest.importorskip("transformers")
    folder = place / "bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"]
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    transformers.BertConfig(vocab_size=6, **size).save_pretrained(folder)
    import torch

    from cuvee.train import TrainSettings

    settings = TrainSettings(trainer="encoder", model=str(folder), device="cpu", steps=1)
    for write in (lambda path: save(path, Bomb()), lambda path: torch.save({"x": Bomb()}, path)):
        write(folder / "pytorch_model.bin")
        for read in (
            lambda: load_encoder(str(folder)).encode(["x"]),
            lambda: train_model(load_corpus("rows.jsonl"), settings=settings),
        ):
            with pytest.raises(InputError, match="cannot be loaded"):
                read()
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(
    "content", ["!!python/object/apply:pathlib.Path.touch [PWNED]\n", "name: !!python/name:os.abort\n", "- a\n"]
)
def test_yaml_makes_plain_values_only(content):
    Path("s.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"s\.yaml"):
        read_config("s.yaml")
    assert not Path("PWNED").exists()


@pytest.mark.parametrize(
    "source",
    [
        "{{ text.__class__.__mro__[1].__subclasses__() }} {{ text }}",
        "{{ text }}{{ cycler.__init__.__globals__.os.abort() }}",
        "{{ text }}{% include '/etc/passwd' %}",
    ],
)
def test_prompt_templates_are_sandboxed(source):
    Path("p").mkdir()
    Path("p", "paraphrase_chat_user.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError, match="paraphrase_chat_user"):
        load_prompts("p")


def look_up(name):
    """Work of a worker: whether it may have what is named."""
    try:
        return resolve_name(name, {}, Kind(name="encoder", makes=HashingEncoder)).__name__
    except ConfigError as exc:
        return str(exc)


@pytest.mark.parametrize("kind", ["local", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_trust_what_the_user_trusts_and_their_files_are_the_users_own(kind, place, monkeypatch):
    if kind == "ray":
        pytest.importorskip("ray")
    else:  # whose sockets want a short path
        monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    with trust_modules("own_code"), open_executor(kind, Terms(workers=1) if kind != "local" else Terms()) as executor:
        found = dict(executor.run_all(look_up, ["own_code:Mine", "json:JSONDecoder"]))
        folders = list(place.glob("cuvee-workers-*"))
        assert len(folders) == (kind == "processes") and all(f.stat().st_mode & 0o077 == 0 for f in folders)
    assert found["own_code:Mine"] == "Mine" and "--trust json" in found["json:JSONDecoder"]
    assert not list(place.glob("cuvee-workers-*"))
