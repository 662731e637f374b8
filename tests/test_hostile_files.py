"""Files that come in damaged, or made to do harm: one line that names the file, in bounded time and memory."""

import gzip
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import refused
from cuvee.config.reading import read_config
from cuvee.errors import ConfigError
from cuvee.inputs import bounded_memory, free_memory
from cuvee.train import TrainSettings
from cuvee.train.settings import Description, write_description

STUDY = "data: {real: rows.jsonl}\ndials:\n- {name: sampling, levels: [0.3, 0.9]}\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(22)
)
MERGES = "a: &a {x: 1}\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: *{chr(97 + i)}}}\n" for i in range(22))
ROWS = b'{"text": "goal", "label": "a"}\n{"text": "chip", "label": "b"}\n'
SAFE = "save it as UTF-8"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (STUDY.encode("utf-16") + b"x", "begins as utf-16 and is not; " + SAFE),
        ((STUDY + "describe: caf\xe9\n").encode("latin-1"), f"line 4: not UTF-8; {SAFE}"),
        (bytes(range(256)) * 9, "study.yaml"),
        (STUDY.encode() + b"name: a\x00b\n", "line 4: not valid YAML (character 0x0"),
        (b"[" * 10_000, "nested deeper than 50 levels"),
        (b"data:\n" + b"".join(b" " * i + b"a:\n" for i in range(1, 900)), "line 50: not valid YAML (nested deeper"),
        (BOMB.encode(), "line 2: not valid YAML (alias *a: write out"),
        (MERGES.encode(), "line 2: not valid YAML (alias *a: write out"),
        (b"a: {<<: {x: 1}}\n", "merge key <<"),
        (
            STUDY.encode() + b"seed: 1\nname: x\nseed: 2\n",
            "line 6: not valid YAML (key 'seed' is there already, on line 4",
        ),
        (STUDY.encode() + b"seed: " + b"9" * 20_000, "line 4: not valid YAML (a whole number beyond 64 bits)"),
        (STUDY.encode() + b"seed: 99999999999999999999", "beyond 64 bits"),
        (STUDY.encode() + b"seed: '" + b"9" * 20_000 + b"'", "line 4: seed: "),
        (STUDY.encode() + b"mix: {shares: [.inf]}", "line 4: not valid YAML (.inf is not a finite number)"),
        (STUDY.encode() + b"split: {near: .nan}", ".nan is not a finite number"),
        (STUDY.encode() + b"advice: {alpha: 'nan'}", "advice.alpha: input should be a finite number"),
        (STUDY.encode() + b"name: 2026-99-99", "line 4: not valid YAML (month must be in 1..12)"),
        (b"# " + b"x" * 2**21, "larger than the 1.0 MB"),
    ],
)
def test_a_damaged_study_is_one_line(tmp_path, capsys, content, told):  # aliases took for ever
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    message = refused(capsys, "run", path)
    assert told in message and str(path) in message and len(message) < 600


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_study_may_be_of_any_unicode(tmp_path, encoding):
    (tmp_path / "study.yaml").write_bytes(STUDY.encode(encoding))
    assert read_config(tmp_path / "study.yaml").data.real == str(tmp_path / "rows.jsonl")


def test_a_python_value_of_many_digits_is_one_line():
    from cuvee.config.reading import make_config

    with pytest.raises(ConfigError, match=r"seed: .*a number of thousands of digits"):
        make_config({"data": {"real": "x"}, "seed": -(10**20_000)})


def deep(depth: int) -> bytes:
    return b'{"text": "x", "label": "a", "more": ' + b"[" * depth + b"]" * depth + b"}\n"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("d.jsonl", ROWS.decode().encode("utf-16-le") + b"x", "begins as utf-16-le and is not; " + SAFE),
        ("d.tsv", "text\tlabel\nok\ta\ncaf\xe9\tb\n".encode("latin-1"), f"line 3: not UTF-8; {SAFE}"),
        ("d.jsonl", ROWS + deep(100_000), "line 3: broken JSON (nested too deep)"),
        (
            "d.jsonl",
            ROWS + b'{"text": ' + b"9" * 20_000 + b"}\n",
            "line 3: broken JSON (a number of thousands of digits)",
        ),
        ("d.jsonl", b'{"text": "\\ud800", "label": "a"}\n', "row 1: column 'text' holds half of a surrogate pair"),
        ("d.jsonl", ROWS + b'{"text": "x", "label": NaN}\n', "row 3: column 'label' is empty"),
        ("d.jsonl", b"".join(b'{"k%d": 1}\n' % i for i in range(10_002)), "has 10001 columns"),
        ("d.csv", b",".join(b"c%d" % i for i in range(10_002)) + b"\n", "has 10002 columns"),
        ("d.jsonl.gz", lambda: gzip.compress(b" " * 10**8), "its contents are more than 200 times its"),
        ("d.csv.gz", lambda: gzip.compress(b"text,label\n" + b"a,b\n" * 3 * 10**7), "its contents are more than 200"),
        ("d.jsonl.gz", gzip.compress(ROWS, mtime=0)[:-9] + b"\x00" * 9, "cannot be read"),
        ("d.jsonl.gz", b"\x1f\x8b\x08\x00" + b"\x00" * 6 + b"\xff" * 99, "cannot be read"),
        ("d.parquet", b"PAR1" + b"\xff" * 99 + b"PAR1", "cannot be read"),
    ],
)
def test_damaged_rows_are_one_line(tmp_path, capsys, name, content, told):
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    message = refused(capsys, "measure", tmp_path / name)
    assert told in message and str(tmp_path / name) in message and len(message) < 600


def test_every_byte_of_a_parquet_file_may_be_wrong(tmp_path, capsys):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"text": ["goal", "chip"] * 50, "label": ["a", "b"] * 50}), path)
    whole = path.read_bytes()
    for cut in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert str(path) in refused(capsys, "measure", path)
    path.write_bytes(whole[:20] + b"\xff" * 60 + whole[80:])
    assert str(path) in refused(capsys, "measure", path)


# --- Bombs: a process whose address space is bounded -----------------------------------------------
ROOM = 1000 * 2**20
BEFORE = resource.getrlimit(resource.RLIMIT_AS)  # of this process, when no test has run yet
LOADS = """
import resource
import shutil, sys
import pyarrow.parquet
from cuvee.corpus import load_corpus
from cuvee.corpus import load_vectors
from cuvee.errors import InputError
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + {room}, resource.RLIM_INFINITY))
try:
    ({load})(sys.argv[1])
except InputError as exc:
    print(exc)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # not its parent's
"""


def loaded(path: Path, load: str = "load_corpus") -> tuple[str, int]:
    """What reading a file says, and the most memory it took in MB."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS.format(room=ROOM, load=load), str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *lines, peak = done.stdout.splitlines()  # kB
    assert len(lines) <= 1
    return "".join(lines), int(peak) // 1000


def repeat(path: Path, value: object, rows: int, times: int, **options: object) -> None:
    """A small Parquet file of the same value over and over, with ``text`` and ``label``."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([value]))
    table = pa.table({"text": column, "label": column})
    if options.pop("dense", False):
        table = table.cast(pa.schema([("text", pa.string()), ("label", pa.string())]))
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for _ in range(times):
            writer.write_table(table, row_group_size=rows)


def bomb_of_rows(path: Path) -> None:
    repeat(path, "x" * 20, 2_000_000, 16, dense=True)


def bomb_of_long_texts(path: Path) -> None:
    repeat(path, "x" * 2**20, 2000, 2, compression="zstd")


def bomb_of_rows_alone(path: Path) -> None:
    with pq.ParquetWriter(path, pa.schema([("text", pa.null())])) as writer:
        writer.write_table(pa.table({"text": pa.nulls(10**8)}), row_group_size=10**8)


def bomb_of_numbers(path: Path) -> None:
    path.write_bytes(b"text,label\n" + b"1,2\n" * 40_000_000)


def bomb_of_a_line(path: Path) -> None:
    path.write_bytes(b'{"text": [' + b"[]," * 15_000_000 + b"[]]}\n")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space of a process")
@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("d.parquet", bomb_of_rows, "of memory that are free"),
        ("d.parquet", bomb_of_long_texts, "of memory that are free"),
        ("d.parquet", bomb_of_rows_alone, "claims 100000000 rows in"),
        ("d.csv", bomb_of_numbers, "of memory that are free"),
        ("d.jsonl", bomb_of_a_line, "of memory that are free"),
    ],
)
def test_what_would_not_fit_in_memory_is_refused(tmp_path, name, make, told):
    make(tmp_path / name)
    message, peak = loaded(tmp_path / name)
    assert told in message and str(tmp_path / name) in message
    assert peak < 1300  # MB, of which some 150 are the libraries'


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space of a process")
def test_a_file_that_fits_is_read_and_the_bound_is_lifted(tmp_path):
    with bounded_memory(tmp_path), bounded_memory(tmp_path):
        inside = resource.getrlimit(resource.RLIMIT_AS)[0]
        assert 0 < inside < free_memory() + 2**40
    assert resource.getrlimit(resource.RLIMIT_AS) == BEFORE
    (tmp_path / "d.csv").write_bytes(b"text,label\n" + b"".join(b"text of row %d,a\n" % i for i in range(200_000)))
    assert loaded(tmp_path / "d.csv")[0] == ""


# --- Vectors ---------------------------------------------------------------------------------------
def npy(shape: str, kind: str = "<f4", data: bytes = b"") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"PK\x03\x04" + b"x" * 50,
        pickle.dumps({"a": 1}),
        npy("(1000000000000, 384)"),
        npy("(4294967296, 4294967296)"),
        npy("(-2, 4)", data=b"\x00" * 32),
        npy("(2, 0)"),
        npy("(" + "9" * 5000 + ", 2)"),
        npy("(" * 2000),
        npy("('a', 2)"),
        npy("(2, 2)", "|O", b"\x80" * 64),
        npy("(2, 2)", "<M8", b"\x00" * 64),
        npy("(2, 2)", "<c8", b"\x00" * 64),
    ],
)
def test_damaged_vectors_are_one_line(tmp_path, capsys, content):
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    (tmp_path / "v.npy").write_bytes(content)
    message = refused(capsys, "measure", tmp_path / "rows.jsonl", "--embeddings", tmp_path / "v.npy")
    assert str(tmp_path / "v.npy") in message and len(message) < 600


def test_damaged_vectors_in_parquet_are_one_line(tmp_path, capsys):
    path = tmp_path / "v.parquet"
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    pq.write_table(pa.table({"v": pa.array([[0.5] * 64] * 2, pa.list_(pa.float32()))}), path)
    whole = path.read_bytes()
    for content in (whole[:99], whole[:30] + b"\xff" * 60 + whole[90:], b"PAR1", whole[:-9]):
        path.write_bytes(content)
        assert str(path) in refused(capsys, "measure", tmp_path / "rows.jsonl", "--embeddings", path)


# --- Models ----------------------------------------------------------------------------------------
class Shell:
    """What a pickle runs when it is loaded."""

    def __reduce__(self):
        return os.system, (f"touch {Shell.mark}",)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny fine-tuned encoder, and rows to predict."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("made")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "goal": 2, "chip": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    saved = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    saved.save_pretrained(str(folder / "model"))
    config = BertConfig(
        vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        BertModel(config).save_pretrained(folder / "model")
    np.savez(folder / "probe.npz", weights=np.zeros((8, 2), np.float32), bias=np.zeros(2, np.float32))
    settings = TrainSettings(trainer="encoder", max_length=16)
    write_description(folder, Description(kind="encoder", labels=("a", "b"), settings=settings, extra={}))
    return folder


def put(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def edit(name: str, **values: object):
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def head(**arrays: object):
    return lambda folder: np.savez(folder / "probe.npz", **arrays)


def claim(folder: Path) -> None:
    with zipfile.ZipFile(folder / "probe.npz", "w") as file:
        file.writestr("weights.npy", npy("(100000000, 10000000)"))


def pickled(folder: Path) -> None:
    Shell.mark = folder / "PWNED"
    (folder / "model" / "model.safetensors").unlink()
    (folder / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(Shell()))


def cut(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-99])


WEIGHT, BIAS = np.zeros((8, 2), np.float32), np.zeros(2, np.float32)
CONFIG, DESCRIPTION, WEIGHTS = "model/config.json", "predictor.json", "model/model.safetensors"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (pickled, "its weights would run code"),
        (cut, "model' cannot be loaded"),
        (put(WEIGHTS, b""), "model' cannot be loaded"),
        (put(WEIGHTS, b"\xff" * 999), "model' cannot be loaded"),
        (edit(CONFIG, hidden_size=10**9), "model' cannot be loaded"),
        (edit(CONFIG, vocab_size=10**12), "model' cannot be loaded"),
        (edit(CONFIG, num_attention_heads=0), "model' cannot be loaded"),
        (edit(CONFIG, num_hidden_layers=10**6), "num_hidden_layers is 1000000; no model has more than 1000"),
        (put(CONFIG, b"[" * 100_000), "config.json: broken JSON (nested too deep)"),
        (put(CONFIG, b"[]"), "model' cannot be loaded"),
        (put("model/tokenizer.json", b"{}"), "model' cannot be loaded"),
        (put("model/tokenizer_config.json", b"[]"), "model' cannot be loaded"),
        (head(weights=np.array([{}], dtype=object), bias=BIAS), "probe.npz cannot be loaded"),
        (head(weights=WEIGHT[:, :1], bias=BIAS), "not the float32 of 2 labels"),
        (head(weights=np.zeros((9, 2), np.float32), bias=BIAS), "the head is for 9 dimensions"),
        (head(weights=WEIGHT * np.nan, bias=BIAS), "not finite"),
        (head(bias=BIAS), "probe.npz cannot be loaded"),
        (put("probe.npz", b""), "probe.npz cannot be loaded"),
        (put("probe.npz", b"PK\x03\x04" + b"x" * 99), "probe.npz cannot be loaded"),
        (put("probe.npz", pickle.dumps({})), "probe.npz cannot be loaded"),
        (claim, "probe.npz: to read it would take more than"),
        (edit(DESCRIPTION, labels=5), "broken (labels: "),
        (edit(DESCRIPTION, kind=5), "broken (kind: "),
        (edit(DESCRIPTION, extra=None), "broken (extra: "),
        (edit(DESCRIPTION, settings={"max_length": 10**30}), "reads 64; train again"),
        (edit(DESCRIPTION, kind="causal"), "extra.template is missing"),
        (edit(DESCRIPTION, kind="probe"), "extra.encoder is missing"),
        (
            edit(DESCRIPTION, kind="causal", extra={"template": "chat", "dropped": "x"}),
            "extra.dropped cannot be loaded",
        ),
        (put(DESCRIPTION, b'{"format": ' + b"9" * 20_000 + b"}"), "predictor.json: broken"),
        (put(DESCRIPTION, b"[" * 100_000), "predictor.json: broken"),
        (put(DESCRIPTION, "{}".encode("utf-16")), "predictor.json: broken"),
    ],
)
def test_a_damaged_model_is_one_line_and_runs_nothing(model, tmp_path, capsys, damage, told):
    folder, rows = tmp_path / "copy", tmp_path / "rows.jsonl"
    shutil.copytree(model, folder)
    rows.write_bytes(ROWS)
    damage(folder)
    message = refused(capsys, "predict", folder, rows, "--out", tmp_path / "out.jsonl")
    assert told in message and str(folder) in message and len(message) < 900
    assert not (folder / "PWNED").exists() and not (tmp_path / "out.jsonl").exists()


# --- The other files, and numbers of the command line ----------------------------------------------
@pytest.mark.parametrize("content", ["{{ text }}".encode("utf-16"), b"caf\xe9", b"x" * 2**21])
def test_damaged_prompts_are_one_line(tmp_path, content):
    from cuvee.generate.prompts import load_prompts

    (tmp_path / "label_chat_user.jinja").write_bytes(content)
    with pytest.raises(ConfigError, match=r"label_chat_user\.jinja"):
        load_prompts(tmp_path)


@pytest.mark.parametrize("option", ["--seed=" + "9" * 30, "--rows=" + "9" * 30])
def test_numbers_beyond_64_bits_are_one_line(tmp_path, capsys, option):
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    assert "give a finite number of at most 64 bits" in refused(capsys, "measure", tmp_path / "rows.jsonl", option)


@pytest.mark.parametrize("value", ["inf", "1e999", "nan"])
def test_numbers_that_are_not_finite_are_one_line(tmp_path, capsys, value):
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    made = ("select", tmp_path / "rows.jsonl", "--rows", 1, "--target", value, "--metric", "vendi")
    assert "--target is" in refused(capsys, *made)
