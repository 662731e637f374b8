"""The command line as a user meets it: plain files, a study, and every kind of bad input."""

import json
import re
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from command_line import call, refused
from cuvee.config.reading import read_config
from cuvee.corpus import load_corpus
from cuvee.measure import METRICS
from cuvee.study.demo import read_headlines


@pytest.fixture
def texts(headlines, tmp_path):
    """Real rows, and a synthetic file made of small changes to some of them."""
    rows = [json.loads(line) for line in headlines.read_text(encoding="utf-8").splitlines()]
    made = [{"text": f"{r['text']} again today", "label": r["label"]} for r in rows[::2]]
    path = tmp_path / "synthetic.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in made), encoding="utf-8")
    return headlines, path


def test_measure_a_file_against_real_rows(texts, capsys):
    real, synthetic = texts
    code, out, _ = call(capsys, "measure", synthetic, "--against", real, "--encoder", "hashing", "--json")
    found = json.loads(out)
    assert code == 0 and found["n"] == 75 and found["encoder"] == "hashing"
    assert {"vendi_q1", "dcscore_tau0.1", "mmd", "label_agreement"} <= set(found) & set(METRICS)
    assert found["vendi_q1"]["low"] < found["vendi_q1"]["value"] < found["vendi_q1"]["high"]
    code, out, _ = call(capsys, "measure", synthetic, "--encoder", "hashing", "--metric", "distinct_1", "--rows", 20)
    assert code == 0 and "distinct_1" in out and "vendi" not in out


def test_mix_train_evaluate_on_plain_files(texts, tmp_path, capsys):
    real, synthetic = texts
    blend, model = tmp_path / "b.parquet", tmp_path / "model"
    code, out, _ = call(capsys, "mix", real, synthetic, "--share", 0.2, "--out", blend, "--json")
    made = json.loads(out)
    assert code == 0 and made["share"] == pytest.approx(made["synthetic_rows"] / made["rows"])
    assert len(load_corpus(blend)) == made["rows"]
    code, out, _ = call(capsys, "train", blend, "--encoder", "hashing", "--out", model, "--json")
    assert code == 0 and json.loads(out)["labels"] == ["business", "politics", "sports"]
    code, out, _ = call(capsys, "evaluate", model, real, "--json")
    assert code == 0 and json.loads(out)["accuracy"]["value"] > 0.6


def test_source_weight_of_zero_and_one_are_obeyed(texts, tmp_path, capsys):
    real, synthetic = texts
    call(capsys, "mix", real, synthetic, "--share", 0.3, "--out", tmp_path / "b.parquet")
    base = ["train", tmp_path / "b.parquet", "--encoder", "hashing"]
    found = {}
    for weight in (0, 1):
        call(capsys, *base, "--loss", "source_weight", "--source-weight", weight, "--out", tmp_path / f"w{weight}")
        found[weight] = json.loads(call(capsys, "evaluate", tmp_path / f"w{weight}", real, "--json")[1])
    call(capsys, *base, "--loss", "ce", "--out", tmp_path / "ce")
    pooled = json.loads(call(capsys, "evaluate", tmp_path / "ce", real, "--json")[1])
    assert found[1] == pooled != found[0]


def test_init_writes_a_study_that_is_valid(headlines, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "init", headlines)
    assert code == 0 and "columns text, label" in out
    text = (tmp_path / "study.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=study.schema.json")
    assert json.loads((tmp_path / "study.schema.json").read_text(encoding="utf-8"))["properties"]
    assert yaml.safe_load(text)["data"] == {"real": "headlines.jsonl", "text": "text", "label": "label"}
    assert "already there" in refused(capsys, "init", headlines)


def test_init_names_where_synthetic_rows_come_from(texts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real, pool = texts
    call(capsys, "init", real, "--pool", pool, "--pool", real, "--time", "90s")
    found = read_config("study.yaml")
    assert [each.path for each in found.pools] == [str(pool), str(real)] and found.draws.time == "90s"
    call(capsys, "init", real, "--base-url", "http://localhost:9/v1", "--model", "a: b", "--force")
    assert (found := read_config("study.yaml").generator).kind == "endpoint" and found.model == "a: b"
    assert "go together" in refused(capsys, "init", real, "--model", "m", "--force")
    assert "give one of them" in refused(
        capsys, "init", real, "--pool", pool, "--model", "m", "--base-url", "u", "--force"
    )
    assert "study.yaml says it" in refused(capsys, "run", "study.yaml", "--time", "20m")
    for time in ("soon", "0s"):
        assert "90s, 10m or 2h" in refused(capsys, "init", real, "--time", time, "--out", "b.yaml")
    pool.write_text('{"review": "good", "stars": "5"}\n', encoding="utf-8")
    assert "call it 'text'" in refused(capsys, "init", real, "--pool", pool, "--out", "b.yaml")
    pool.write_text('{"text": "good", "label": "5"}\n' * 9, encoding="utf-8")
    assert "one label only ('5')" in refused(capsys, "init", pool, "--out", "b.yaml")
    assert not Path("b.yaml").exists()


@pytest.mark.slow
def test_one_command_runs_a_file_of_rows(texts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real, pool = texts
    others = [
        {"text": t, "label": label} for t, label in read_headlines() if label in ("business", "politics", "sports")
    ]
    pool.write_text("".join(json.dumps(row) + "\n" for row in others[-600::3]), encoding="utf-8")
    code, out, err = call(capsys, "run", real, "--pool", pool, "--time", "5s", "--json")
    assert code == 0, err
    assert "text is 'text', label is 'label'" in err and "synthetic rows: files" in err
    written, advice = Path(f"{real.stem}.study.yaml"), json.loads(out)
    again = json.loads(call(capsys, "run", real, "--pool", pool, "--time", "5s", "--json")[1])
    assert again["decision"] == advice["decision"]
    written.write_text(written.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    assert "already there" in refused(capsys, "run", real, "--pool", pool, "--time", "5s")


@pytest.mark.slow  # with the others of its kind
def test_every_stage_of_a_run_folder(settings, tmp_path, capsys):
    study, folder = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    code, out, err = call(capsys, "run", study, "--out", folder)
    assert code == 0 and "Verdict:" in out and "report.html" in out and "seconds: prepare" in err
    pools = json.loads(call(capsys, "generate", folder, "--json")[1])
    assert pools["sampling=0.3"]["rows"] == 18
    measured = json.loads(call(capsys, "measure", folder, "--json")[1])
    assert measured["paraphrase=1"]["vendi_q1"]["value"] > 1
    blend = tmp_path / "b.parquet"
    pool, real = folder / "pools" / "sampling=0.9.parquet", settings["data"]["real"]
    mixed = json.loads(call(capsys, "mix", real, pool, "--amount", "all", "-o", blend, "--json")[1])
    assert mixed["synthetic_rows"] == 18
    assert json.loads(call(capsys, "train", folder, "--json")[1])["model"] == str(folder / "model")
    advice = json.loads(call(capsys, "recommend", folder, "--json")[1])
    assert advice["decision"] in ("use", "do-not-use", "underpowered")
    assert json.loads(call(capsys, "report", folder, "--json")[1])["report"].endswith("report.html")
    charts = tmp_path / "charts"
    assert json.loads(call(capsys, "report", folder, "--charts", charts, "--json")[1])["charts"] == str(charts)
    names = sorted(path.name for path in charts.iterdir())
    assert {"real-and-synthetic-rows.csv", "diversity-and-shift-of-every-pool.png"} <= set(names)
    assert len(names) == 3 * len({name.rsplit(".", 1)[0] for name in names}) >= 15
    assert f"--charts {study}" in refused(capsys, "report", folder, "--charts", study)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count(">most redundant<") >= 2 and page.count(">most novel<") >= 2 and "Accuracy by amount" in page
    kept = re.findall(r"<li>= (\d+) rows left</li>", page)
    assert len(kept) == len(pools) and all(int(n) == pool["rows"] for n, pool in zip(kept, pools.values(), strict=True))


def test_generate_rows_like_those_of_a_file(headlines, tmp_path, capsys, local):
    out = tmp_path / "made.jsonl"
    url = f"http://127.0.0.1:{local.port}/v1"
    base = ["generate", headlines, "--rows", 3, "--base-url", url, "--model", "tiny", "--out", out]
    code, shown, _ = call(capsys, *base, "--temperature", 0.4, "--describe", "news headlines", "--json")
    assert code == 0 and json.loads(shown)[str(out)]["rows"] == 9
    made = load_corpus(out)
    assert set(made.origins) == {"synthetic"} and made.label_counts() == {"business": 3, "politics": 3, "sports": 3}
    assert {b["temperature"] for b in local.bodies} == {0.4} and "news headlines" in str(local.bodies[0])
    assert "NO_SUCH_VARIABLE is not set" in refused(capsys, *base, "--api-key-env", "NO_SUCH_VARIABLE")
    assert "'chatt' is not one of 'chat', 'completions'" in refused(capsys, *base, "--api", "chatt")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("generate", ["--rows", 3]),
        ("generate", ["--model", "x"]),
        ("measure", ["--against", "x.jsonl"]),
        ("measure", ["--encoder", "hashing"]),
        ("train", ["--trainer", "encoder"]),
        ("train", ["--steps", 3]),
    ],
)
def test_an_option_that_a_study_would_ignore_is_refused(settings, tmp_path, capsys, local, command, option):
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    line = refused(capsys, command, study, *option)
    assert option[0] in line and "has no effect here: a study takes it from study.yaml" in line
    assert not local.bodies


def test_an_option_that_plain_files_would_ignore_is_refused(texts, capsys):
    real = texts[0]
    assert "--model has no effect" in refused(capsys, "generate", real, "--model", "x")
    assert "--encoder has no effect" in refused(capsys, "train", real, "--trainer", "encoder", "--encoder", "hashing")


# --- bad input ------------------------------------------------------------------------------------
def study_file(tmp_path, settings, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**settings, **changes}), encoding="utf-8")
    return path


def test_bad_files(texts, tmp_path, capsys):
    real, synthetic = texts
    assert "nope.csv: no such file" in refused(capsys, "measure", tmp_path / "nope.csv")
    assert "did you mean 'label'" in refused(capsys, "measure", synthetic, "--text", "text", "--label", "labl")
    (tmp_path / "empty.jsonl").touch()
    assert "the file is empty" in refused(capsys, "measure", tmp_path / "empty.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "b"}\n{"text"\n')
    assert "broken.jsonl, line 2: broken JSON" in refused(capsys, "measure", tmp_path / "broken.jsonl")
    assert "the largest share this pool allows is 0.3" in refused(
        capsys, "mix", real, synthetic, "--share", 0.9, "-o", tmp_path / "x.parquet"
    )
    assert not (tmp_path / "x.parquet").exists()
    assert "did you mean 'vendi_q2'" in refused(
        capsys, "measure", synthetic, "--metric", "vendi_q", "--encoder", "hashing"
    )
    assert f"not a run folder (it has no study.yaml); to study its rows: cuvee run {tmp_path}" in refused(
        capsys, "run", tmp_path
    )
    assert f"a file of rows and no study; `cuvee init {real}` writes one" in refused(capsys, "plan", real)
    assert "none.csv: no such file; give rows" in refused(capsys, "run", real.with_name("none.csv"))
    assert "--grounded has no effect here" in refused(capsys, "generate", real, "--grounded", 0.5)
    told = refused(capsys, "train", real, "--set", "frozen_prompts=true", "--out", tmp_path / "model")
    assert "leave it out, or set trainer: causal" in told
    assert "did you mean 'probe'" in refused(capsys, "train", real, "--trainer", "prob", "--encoder", "hashing")
    assert "mmd" in refused(capsys, "measure", synthetic, "--metric", "mmd", "--encoder", "hashing")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time", "5x"), "--time: time is '5x'; give"),
        (("--base-url", "a", "--model", "m"), "--base-url: address 1 of"),
    ],
)
def test_an_option_of_a_study_that_is_not_written_yet_is_named(headlines, capsys, monkeypatch, tmp_path, options, said):
    monkeypatch.chdir(tmp_path)
    for command in ("init", "run"):
        assert refused(capsys, command, headlines, *options).startswith(f"error: {said}")
    assert not list(tmp_path.glob("*.yaml"))


def test_bad_studies(settings, tmp_path, capsys):
    file = study_file(tmp_path, settings, encodr="x")
    assert "unknown key 'encodr'; did you mean 'encoder'?" in refused(capsys, "run", file)
    one = tmp_path / "one.jsonl"
    one.write_text("".join(json.dumps({"text": f"t{i}", "label": "only"}) + "\n" for i in range(99)), encoding="utf-8")
    assert "one label only" in refused(capsys, "run", study_file(tmp_path, settings, data={"real": str(one)}))
    assert f"{one}: one label only ('only'); is it in" in refused(capsys, "train", one, "--encoder", "hashing")
    few = {"test": 45, "validation": 45, "rows_per_label": 40}
    assert "lower split" in refused(capsys, "run", study_file(tmp_path, settings, split=few))
    missing = study_file(tmp_path, settings, data={"real": "gone.csv"})
    assert "gone.csv: no such file" in refused(capsys, "run", missing, "--out", tmp_path / "r")


@pytest.mark.parametrize(
    "written",
    [
        ("select", "--out", "ROWS"),
        ("select", "--removed", "ROWS"),
        ("select", "--out", "new.jsonl", "--removed", "new.jsonl"),
        ("measure", "--examples", "ROWS"),
        ("init", "--out", "ROWS", "--force"),
    ],
)
def test_a_file_that_is_read_is_not_written_over(tmp_path, capsys, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n', encoding="utf-8")
    command, *options = ("./rows.jsonl" if each == "ROWS" else each for each in written)
    assert "reads or writes this file; name another one" in refused(capsys, command, rows, *options)
    assert rows.read_text(encoding="utf-8").count("\n") == 2 and not (tmp_path / "new.jsonl").exists()


def test_an_empty_argument_and_an_error_before_any_progress_are_one_line(tmp_path, capsys):
    for arguments, said in (
        (("measure", ""), "an argument is empty; is a variable of the shell not set?"),
        (("measure", tmp_path / "none.csv"), "no such file"),
        (("measure", tmp_path / "none.csv", "--examples", "scores.txt"), "--examples scores.txt: unknown kind of file"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def with_endpoint(settings, **changes):
    return {"generator": {**settings["generator"], **changes}}


def test_a_dead_endpoint_and_a_wrong_model(settings, tmp_path, capsys, local):
    async def unknown(_number, _request, _body):
        return web.json_response({"error": {"message": "model 'tinny' not found"}}, status=404)

    dead = study_file(tmp_path, settings, **with_endpoint(settings, base_url="http://127.0.0.1:9/v1", give_up_s=0.3))
    assert "127.0.0.1:9" in refused(capsys, "run", dead, "--out", tmp_path / "a")
    local.script = unknown
    wrong = study_file(tmp_path, settings, **with_endpoint(settings, model="tinny"))
    line = refused(capsys, "run", wrong, "--out", tmp_path / "b")
    assert "tinny" in line and "tiny" in line


def test_401_names_the_variable_and_keeps_what_was_answered(settings, tmp_path, capsys, local, monkeypatch):
    async def locked(number, _request, _body):
        return web.json_response({"error": {"message": "bad key"}}, status=401) if number >= 10 else None

    local.script = locked
    monkeypatch.setenv("MY_KEY", "secret-value")
    study = study_file(tmp_path, settings, **with_endpoint(settings, api_key_env="MY_KEY", concurrency=1))
    line = refused(capsys, "run", study, "--out", tmp_path / "run")
    assert "MY_KEY" in line and "secret-value" not in line
    local.script, sent = None, len(local.bodies)
    code, _, _ = call(capsys, "generate", study, "--out", tmp_path / "run")
    assert code == 0
    first = {json.dumps(b, sort_keys=True) for b in local.bodies[:10]}
    assert not first & {json.dumps(b, sort_keys=True) for b in local.bodies[sent:]}


def test_another_study_in_the_folder_is_refused(settings, tmp_path, capsys):
    folder = tmp_path / "run"
    assert call(capsys, "generate", study_file(tmp_path, settings), "--out", folder)[0] == 0
    line = refused(capsys, "run", study_file(tmp_path, settings, seed=5), "--out", folder)
    assert "other seeds" in line and "--out" in line
