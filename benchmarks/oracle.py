"""Records what the code does today, so that a rebuilt one can be compared with it.

    python benchmarks/oracle.py record benchmarks/oracle   # run everything, write DIR/*.json
    python benchmarks/oracle.py check benchmarks/oracle    # run everything again, print each difference; exit 1 if any

It runs what oracle.yaml lists, through ``cuvee.run_study`` and ``python -m cuvee`` alone, on a few rows of the data in
the folder CUVEE_DATA (``shared/data`` beside the checkout if not set), with a deterministic LLM server on loopback and
random models of two layers. It takes two minutes of one idle core.

Of tables, rows are compared and not bytes: ``rows`` counts them, ``columns`` has a hash of each column, ``each`` a hash
of each row's text, target, origin, level, block and seed ids. Numbers have 9 digits; those nearer to zero than 1e-7 are
zero, because sums taken in another order differ there. Left out, because they differ from run to run or by machine:
seconds, versions, keys of requests (they hold the port), paths (``TMP`` is the temporary folder, ``PORT`` the server's
address), ledgers, status files, pages and cards. Numerical libraries run on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from unittest import mock

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CUVEE_DATA") or ROOT.parent / "shared" / "data").resolve()
LISTED = Path(__file__).resolve().with_suffix(".yaml")
OUTSIDE = {"seconds", "version", "path", "request_key", "draft_key"}  # keys whose values differ by machine or port
ROW = ("text", "target", "origin", "level", "block", "seed_ids")
WORDS = (
    "account balance card charge transfer refund payment bank machine cash top-up exchange rate fee limit country "
    "currency pending declined statement identity app phone travel lost virtual contactless direct debit weekend"
).split()
HEADS = {"Question": "Answer", "Instruction": "Response", "Beginning": "Continuation"}  # labelled lines of the prompts
Rows = list[dict[str, str]]


def clean(value: object, folder: Path) -> object:
    """The same as plain JSON: numbers of 9 digits, no paths, a cell as its key."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        if {"key", "kind", "share", "trainer"} <= value.keys():
            return value["key"]
        return {str(k): clean(v, folder) for k, v in value.items() if k not in OUTSIDE}
    if isinstance(value, list | tuple):
        return [clean(v, folder) for v in value]
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else 0.0 if abs(value) < 1e-7 else float(f"{value:.9g}")
    if isinstance(value, str):
        return re.sub(r"127\.0\.0\.1:\d+", "PORT", value.replace(str(folder), "TMP"))
    return value


def hash_of(value: object, length: int = 12) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:length]


def describe_tables(out: Path, folder: Path) -> dict[str, object]:
    """Of each table below a folder: its rows, a hash of each column, and one of each row."""
    import pyarrow.parquet as pq

    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.suffix in (".parquet", ".jsonl") and path.name != "locked-test.jsonl":
            rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else read_rows(path)
            rows = [{k: clean(v, folder) for k, v in row.items() if k not in OUTSIDE} for row in rows]
            names = sorted({name for row in rows for name in row})
            columns = {name: hash_of([row.get(name) for row in rows]) for name in names}
            each = " ".join(hash_of([row.get(name) for name in ROW] if "target" in row else row, 6) for row in rows)
            found[str(path.relative_to(out))] = {"rows": len(rows), "columns": columns, "each": each}
    return found


def read_rows(path: Path) -> Rows:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows, each text once."""
    first = {row.get("text") or row.get("question") or row["prompt"]: row for row in reversed(rows)}
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in reversed(first.values())]
    path.write_text("".join(lines), encoding="utf-8")


def write_data(folder: Path) -> None:
    """Write a few rows of the public data: four intents, short stories, questions about paragraphs cut short."""
    import numpy as np

    banking = DATA / "gptaug_banking"
    train = read_rows(banking / "train.jsonl")
    labels = sorted(Counter(row["label"] for row in train).items(), key=lambda found: (-found[1], found[0]))
    few = {label for label, _ in labels[:4]}
    source = {str(100000001 + number): row["text"] for number, row in enumerate(train)}
    pool = [{**row, "of": source[row["origin"]]} for row in read_rows(banking / "synthetic.jsonl.gz")]
    for name, rows in {"train": train, "test": read_rows(banking / "test.jsonl"), "pool": pool}.items():
        write_rows(folder / f"{name}.jsonl", [row for row in rows if row["label"] in few])
    for each in (8, 4, 2, 1):  # levels of diversity: so many paraphrases of each of at most 32 / each sources a label
        chosen: Rows = []
        for row in read_rows(folder / "pool.jsonl"):
            of_label = Counter(other["origin"] for other in chosen if other["label"] == row["label"])
            if of_label[row["origin"]] < each and (row["origin"] in of_label or len(of_label) < 32 // each):
                chosen.append(row)
        write_rows(folder / f"each{each}.jsonl", chosen)
    rows = read_rows(DATA / "fairytale_story" / "train.jsonl.gz")
    short = [row for row in rows if len(row["prompt"] + row["completion"]) < 450]
    write_rows(folder / "story.jsonl", short[:60])
    write_rows(folder / "stories.jsonl", short[70:210])
    for name, file, take in (("asked", "test.jsonl", 90), ("asking", "train.jsonl.gz", 200)):
        rows = read_rows(DATA / "squad_xquad_en" / file)[:take]
        write_rows(folder / f"{name}.jsonl", [{**row, "context": row["context"][:160]} for row in rows])
    rows = read_rows(folder / "train.jsonl")
    np.save(folder / "train.npy", np.random.default_rng(0).standard_normal((len(rows), 16)))


def make_models(folder: Path) -> None:
    """Save a Llama and a BERT of two layers with seeded random weights and a token for each byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    tokens = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    sizes = {"vocab_size": len(tokens), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "max_position_embeddings": 512, "pad_token_id": 2}  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=0, eos_token_id=1)).save_pretrained(folder / "llama")
    BertModel(BertConfig(**sizes), add_pooling_layer=False).save_pretrained(folder / "bert")
    for name in ("llama", "bert"):
        fast.save_pretrained(str(folder / name))


def write_text(body: dict) -> str:
    """Words that the prompt, seed and temperature decide; a higher temperature has more to choose from."""
    asked = json.dumps([body.get("prompt"), body.get("messages"), body["seed"], body["temperature"]])
    found = hashlib.sha256(asked.encode()).digest()
    known = min(len(WORDS), 8 + int(12 * body["temperature"]))
    text = " ".join(WORDS[byte % known] for byte in found[: 6 + found[31] % 4])
    target = " ".join(WORDS[byte % known] for byte in found[12:16])
    last = (body.get("prompt") or "").rsplit("\n", 1)[-1].partition(",")[0].strip(":")
    return f" {text}\n{HEADS[last]}: {target}\n=====" if last in HEADS else text


def run_study(config: dict[str, object], folder: Path, bodies: list[dict]) -> dict[str, object]:
    import cuvee

    try:
        result = cuvee.run_study(config, out=folder / "runs" / str(config["name"]))
    except cuvee.CuveeError as exc:
        return {"error": str(exc)}
    measured = {
        level: {"n": found.n, **{metric: estimate.value for metric, estimate in found.values.items()}}
        for level, found in result.measurements.items()
    }
    sent = sorted(hash_of([b.get("prompt"), b.get("messages"), b["temperature"], b["seed"]]) for b in bodies)
    advice = json.loads((result.folder / "advice.json").read_text(encoding="utf-8"))
    return {"advice": advice, "measurements": measured, "composition": result.composition,
            "requests": {"sent": len(sent), "hash": hash_of(sent)},
            "tables": describe_tables(result.folder, folder)}  # fmt: skip


def read_stream(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def run_command(words: list[str], out: Path, folder: Path) -> dict[str, object]:
    """Run ``python -m cuvee``, in this process because starting it takes longer than most commands."""
    said, told = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = sys.argv
    out.mkdir(parents=True)
    try:
        sys.argv = ["cuvee", *words, "--json"]
        with (contextlib.redirect_stdout(said), contextlib.redirect_stderr(told),
              mock.patch("os._exit", sys.exit)):  # fmt: skip
            runpy.run_module("cuvee", run_name="__main__", alter_sys=False)
        code: object = 0
    except SystemExit as exc:
        code = exc.code or 0
    finally:
        sys.argv = before
    found = read_stream(told).splitlines()[-1:] if code else json.loads(read_stream(said))
    return {"exit": code, "said": found, "tables": describe_tables(out, folder)}


def record(target: Path) -> None:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]  # this checkout's, whatever is installed
    from local_llm import LocalLLM

    def keep(name: str, found: dict[str, object]) -> None:
        text = json.dumps(clean(found, folder), ensure_ascii=False, sort_keys=True, indent=0)
        (target / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"  {name}", file=sys.stderr, flush=True)

    target.mkdir(parents=True, exist_ok=True)
    server = LocalLLM()
    server.text = write_text
    url = f"http://127.0.0.1:{server.port}/v1"
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name).resolve()
        write_data(folder)
        make_models(folder)
        listed = yaml.safe_load(LISTED.read_text(encoding="utf-8").replace("URL", url))
        *studies, dials = [found for found in listed["studies"] if "name" in found]
        Path("dials.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(dials))), encoding="utf-8")
        for config in studies:
            server.bodies.clear()
            keep(f"study-{config['name']}", run_study(config, folder, server.bodies))
        for names, line in listed["commands"].items():
            command, _, kinds = names.partition(" ")
            for kind in kinds.split(","):
                out = Path("out") / f"{command}-{kind}".strip("-")
                words = line
                for short, long in {**listed["short"], "OUT": str(out), "EACH": kind}.items():
                    words = re.sub(rf"\b{short}\b", long, words)
                keep(f"cli-{out.name}", run_command([command, *shlex.split(words)], out, folder))
    server.close()


def compare(old: object, new: object, at: str, tolerance: float) -> Iterator[str]:
    """Every difference, by its JSON pointer."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from compare(old.get(key, "(nothing)"), new.get(key, "(nothing)"), where, tolerance)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from compare(one, other, f"{at}/{number}", tolerance)
    elif isinstance(old, int | float) and isinstance(new, int | float):
        if not math.isclose(old, new, rel_tol=tolerance, abs_tol=1e-7):
            yield f"{at}: {old} -> {new}"
    elif old != new:
        yield f"{at}: {json.dumps(old, ensure_ascii=False)[:300]} -> {json.dumps(new, ensure_ascii=False)[:300]}"


def check(target: Path, tolerance: float) -> int:
    with tempfile.TemporaryDirectory() as name:
        record(Path(name))
        old, new = ({path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
                    for folder in (target, Path(name)))  # fmt: skip
    differences = list(compare(old, new, "", tolerance))
    print("\n".join([*differences, f"{len(differences)} differences in {len(old)} files"]))
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-8, help="relative, of numbers that are compared")
    given = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    folder = given.folder.resolve()
    return check(folder, given.tolerance) if given.what == "check" else record(folder) or 0


if __name__ == "__main__":
    sys.exit(main())
