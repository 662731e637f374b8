"""Keys in addresses: a real server demands them, and no file and no line of output holds them."""

import sqlite3
from base64 import b64encode
from itertools import product
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow.parquet as pa_parquet
import pytest
import yaml
from aiohttp import web

from command_line import call, refused

KEY = "sk-canary/7f3a+91=x"
SPELLED = quote(KEY, safe="")
BASIC = "Basic " + b64encode(f"{KEY}:".encode()).decode()
USER = "Basic " + b64encode(f"alice:{KEY}".encode()).decode()


def header(expected):
    return lambda request: request.headers.get("Authorization") == expected


def query(name):
    return lambda request: request.query.get(name) == KEY


def in_path(request):
    return unquote(request.raw_path).startswith(f"/{KEY}/v1")


FORMS = {
    "http://${A_KEY}@HOST/v1": header(BASIC),
    "http://${A_USER}:${A_KEY}@HOST/v1": header(USER),
    "http://HOST/v1?subscription=${A_KEY}": query("subscription"),
    "http://HOST/v1?code=${A_SPELLED_KEY}&api-version=7": query("code"),
    "http://HOST/v1?api_key=${A_KEY}": query("api_key"),
    "http://HOST/v1?${A_QUERY}": query("anything"),
    "http://HOST/${A_KEY}/v1": in_path,
    "http://HOST/${A_SPELLED_KEY}/v1?code=${A_KEY}": lambda request: in_path(request) and query("code")(request),
    "http://HOST/v1": header(f"Bearer {KEY}"),
}
VARIABLES = {"A_KEY": KEY, "A_SPELLED_KEY": SPELLED, "A_USER": "alice", "A_QUERY": f"anything={SPELLED}"}


@pytest.fixture
def guarded(local, monkeypatch):
    """The server, which tells everything it was sent: in one answer of three, and in refusals and troubles."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    async def echo(number, request, _body):
        said = f"{request.raw_path} {request.path_qs} {dict(request.headers)} {KEY} {quote(KEY)} {SPELLED.lower()}"
        if number % 3 == 0:
            usage = {"prompt_tokens": 7, "completion_tokens": 5}
            return web.json_response({"choices": [{"text": said[-150:], "finish_reason": "stop"}], "usage": usage})
        status = {4: 500, 7: 400}.get(number)
        return None if status is None else web.json_response({"error": {"message": said}}, status=status)

    local.script = echo
    return local


def spoken(*contents):
    """The spellings of the key that are in texts or bytes."""
    spellings = (KEY, SPELLED, SPELLED.lower(), quote(KEY), KEY.replace("/", "\\/"), BASIC[6:], USER[6:])
    whole = b"\n".join(part if isinstance(part, bytes) else str(part).encode() for part in contents)
    return [each for each in spellings if each.encode() in whole]


def held(folder):
    """Every byte of every file, and what is compressed or split over pages inside."""
    for path in [path for path in Path(folder).rglob("*") if path.is_file()]:
        yield from (str(path), path.read_bytes())
        if path.suffix == ".parquet":
            yield pa_parquet.read_table(path).to_pylist()
        if path.suffix == ".sqlite":
            with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
                names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                yield from (database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside mlflow
@pytest.mark.parametrize("form", FORMS)
def test_no_key_of_an_address_is_in_a_file_or_on_the_terminal(
    form, settings, headlines, tmp_path, capsys, monkeypatch, guarded
):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    guarded.guard = FORMS[form]
    url = form.replace("HOST", f"127.0.0.1:{guarded.port}")
    key = [] if "$" in form else ["--api-key-env", "A_KEY"]
    files = tmp_path / "files"
    run = files / "run"
    files.mkdir()
    plain = ["generate", headlines, "--rows", 3, "--base-url", url, "--model", "tiny", "--api", "completions", *key]
    told = call(capsys, *plain, "--out", files / "made.jsonl")
    assert told[0] == 0, told
    assert len(guarded.bodies) >= 10
    generator = {**settings["generator"], "base_url": url, "api_key_env": key[1] if key else None}
    small = {
        "draws": {"generation": 1, "sampling": 1, "training": 1, "confirm": 1},
        "mix": {"shares": [0.5], "shape_share": 0.5},
    }
    study = {**settings, **small, "generator": generator, "dials": settings["dials"][:1]}
    study["track"] = {"mlflow": str(files / "mlruns")}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    for command in ("plan", "run"):
        told += call(capsys, command, tmp_path / "study.yaml", *(["--out", run] if command == "run" else []))
        assert told[-3] == 0, told
    kept = yaml.safe_load((run / "study.yaml").read_text(encoding="utf-8"))
    assert kept["generator"]["base_url"] == url
    for name in VARIABLES:  # the run folder alone: it can be looked at without the key, and go on once it is set
        monkeypatch.delenv(name)
    for command, form_of in product(("status", "ledger"), ([], ["--json"])):
        told += call(capsys, command, run, *form_of)
        assert told[-3] == 0, told
    sent = len(guarded.bodies)
    (run / "pools" / "sampling=0.3.parquet").unlink()
    more = yaml.safe_dump({**kept, "draws": {**kept["draws"], "generation": 2}})
    (run / "study.yaml").write_text(more, encoding="utf-8")
    told += (refused(capsys, "run", run),)
    missing = [name for name in VARIABLES if name in (form if "$" in form else "A_KEY")]
    assert any(f"the environment variable {name} is not set; export it" in told[-1] for name in missing), told[-1]
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    told += call(capsys, "run", run, "--json")
    assert told[-3] == 0, told
    assert len(guarded.bodies) > sent
    monkeypatch.setenv("A_KEY", "sk-wrong-key")
    monkeypatch.setenv("A_SPELLED_KEY", "sk-wrong-key")
    monkeypatch.setenv("A_QUERY", "anything=sk-wrong-key")
    told += (refused(capsys, *plain, "--out", files / "other.jsonl"),)
    assert "401" in told[-1] and "***" in told[-1] and "sk-wrong-key" not in told[-1]
    assert spoken(*told, *held(files)) == []
    assert "sk-wrong" not in "".join(map(str, held(files)))


@pytest.mark.parametrize(
    "form",
    [
        *("http://KEY@HOST/v1", "http://alice:KEY@HOST/v1", "http://HOST/v1?subscription=KEY", "http://HOST/KEY/v1"),
        *("http://HOST/v1?code=KEY", "http://HOST/v1?api-version=3&api_key=KEY", "KEY@HOST/v1", "HOST/v1?code=KEY"),
    ],
)
def test_an_address_with_a_key_in_it_is_refused_and_not_repeated(form, settings, headlines, tmp_path, capsys, guarded):
    url = form.replace("HOST", f"127.0.0.1:{guarded.port}").replace("KEY", SPELLED)
    out = tmp_path / "out.jsonl"
    plain = ["generate", headlines, "--base-url", url, "--model", "tiny", "--api-key-env", "A_KEY", "--out", out]
    study = {**settings, "generator": {**settings["generator"], "base_url": url, "api_key_env": "A_KEY"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    told = [refused(capsys, *plain), refused(capsys, "run", tmp_path / "study.yaml", "--out", out)]
    told += [refused(capsys, command, tmp_path / "study.yaml") for command in ("plan", "status")]
    if form.startswith("http"):
        assert all("${" in line for line in told[:3]), told
    if "://" in form and "/KEY" not in form.partition("://")[2]:
        told += [refused(capsys, "generate", url), refused(capsys, "run", f"{url}/study.yaml")]
    assert spoken(*told) == []
    assert not out.exists() and not guarded.bodies
