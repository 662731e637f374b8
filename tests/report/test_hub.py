"""Dataset folders, and their upload to a hub that a real HTTP server on loopback plays."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO

import pyarrow.parquet as pq
import pytest

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, HubError, InputError
from cuvee.hub import is_dataset, push_folder, write_dataset
from cuvee.mix.blend import count_composition
from cuvee.report import CardFacts, render_card
from local_hub import Hub, serve

pytest.importorskip("huggingface_hub")

TOKEN = "hf_secretSECRETsecret0123456789"
REPO = "someone/blend"
ROWS = Corpus.from_rows([{"text": f"row {i}", "target": f"L{i % 2}"} for i in range(6)])
CARD = render_card(CardFacts(name="x", version="1"), count_composition(ROWS))


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    from huggingface_hub import close_session

    with serve(Hub()) as running:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.port}/")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
        close_session()


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "blend", ROWS, CARD)


def refused(kind: type[Exception], *arguments: object, **options: bool) -> str:
    with pytest.raises(kind) as caught:
        push_folder(*arguments, **options)
    message, chain = str(caught.value), caught.value
    while chain is not None:
        assert TOKEN not in str(chain) and TOKEN not in repr(chain)
        chain = chain.__cause__
    assert "\n" not in message
    return message


# --- the folder ---


def test_a_folder_is_written_whole_and_may_be_written_again(tmp_path):
    folder = write_dataset(tmp_path / "deep" / "blend", ROWS, CARD)
    assert is_dataset(folder) and sorted(p.name for p in folder.iterdir()) == ["README.md", "train.parquet"]
    assert pq.read_table(folder / "train.parquet")["id"].to_pylist() == ROWS.ids
    write_dataset(folder, ROWS.take([0]), CARD)
    assert pq.read_table(folder / "train.parquet").num_rows == 1
    assert [p.name for p in folder.parent.iterdir()] == ["blend"]  # nothing temporary stays
    (tmp_path / "empty").mkdir()
    assert is_dataset(write_dataset(tmp_path / "empty", ROWS, CARD))


def test_other_peoples_folders_are_left_alone(tmp_path):
    ours = {"README.md": "---\ntags: [cuvee]\n---\n", "train.parquet": "x"}
    kept = {
        "notes": {"mine.txt": "x"},
        "model": ours | {"weights": "x"},
        "foreign": ours | {"README.md": "---\ntags: [theirs]\n---\n"},
        "plain": ours | {"README.md": "no front matter"},
        "broken": ours | {"README.md": "---\n{\n---\n"},
    }
    for name, files in kept.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="not empty"):
            write_dataset(tmp_path / name, ROWS, CARD)
        assert {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / name).iterdir()} == files
    assert is_dataset(write_dataset(tmp_path / "model", ROWS, CARD, force=True))
    with pytest.raises(InputError, match="this is a file"):
        write_dataset(tmp_path / "notes" / "mine.txt", ROWS, CARD)


def test_a_write_that_fails_leaves_the_old_dataset(folder):
    class Full(Corpus):
        @property
        def table(self):
            raise OSError(28, "No space left on device")

    broken = object.__new__(Full)
    with pytest.raises(InputError, match="No space left on device"):
        write_dataset(folder, broken, "new card")
    assert (folder / "README.md").read_text(encoding="utf-8") == CARD
    assert [p.name for p in folder.parent.iterdir()] == ["blend"]


# --- the upload ---


def test_a_dataset_arrives_as_it_was_written(hub, folder):
    assert push_folder(folder, REPO) == f"http://127.0.0.1:{hub.port}/datasets/{REPO}"
    assert hub.visibility == {REPO: "private"}
    assert hub.files == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert pq.read_table(BytesIO(hub.files["train.parquet"])).num_rows == len(ROWS)
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert sum("/commit/" in line for line in hub.asked) == 1


# huggingface_hub calls its HTTP library in a way that this deprecates
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_rows_kept_in_large_file_storage_arrive_too(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.large = True
    push_folder(folder, REPO)
    assert hub.files == {p.name: p.read_bytes() for p in folder.iterdir()} and len(hub.stored) == 1


def test_public_has_to_be_asked_for(hub, folder):
    push_folder(folder, REPO, private=False)
    assert hub.visibility == {REPO: "public"}
    hub.asked.clear()
    message = refused(ConfigError, folder, REPO)
    assert message == f"{REPO} is there already, and public; ask for a public one, or choose another name"
    assert not any("commit" in line or "preupload" in line for line in hub.asked)
    push_folder(folder, REPO, private=False)


def test_a_private_repository_that_is_there_is_used(hub, folder):
    hub.visibility[REPO] = "private"
    push_folder(folder, REPO)
    assert set(hub.files) == {"README.md", "train.parquet"}


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_refusal_is_one_line_without_the_token(hub, folder, status):
    hub.answer = lambda _method, _path: (status, {"error": f"bad token {TOKEN}\nof yours"})
    message = refused(HubError, folder, REPO)
    assert message.startswith(f"{REPO} was not uploaded to http") and f"({status} bad token *** of yours" in message
    assert "HF_TOKEN may write" in message


def test_a_token_that_may_write_but_not_make(hub, folder):
    hub.visibility[REPO] = "private"
    hub.answer = lambda _method, path: (403, {"error": "no right"}) if path.endswith("create") else None
    push_folder(folder, REPO)
    assert set(hub.files) == {"README.md", "train.parquet"}


def test_a_card_that_the_hub_does_not_take(hub, folder):
    errors = {"errors": [{"message": '"license" must be one of'}], "warnings": []}
    hub.answer = lambda _method, path: (400, errors) if path.endswith("validate-yaml") else None
    message = refused(HubError, folder, REPO)
    assert message.startswith(f"{REPO} was not uploaded") and '"license" must be one of' in message
    assert hub.files == {}


def test_a_server_that_is_no_hub(hub, folder):
    hub.answer = lambda _method, _path: (200, "<html>hello</html>")
    assert refused(HubError, folder, REPO).startswith(f"{REPO} was not uploaded")
    hub.answer = lambda _method, path: (200, {}) if path.endswith("create") else None
    assert refused(HubError, folder, REPO).startswith(f"{REPO} was not uploaded")


def test_no_network(folder, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert "check the name, the card, the network" in refused(HubError, folder, REPO)


@pytest.mark.slow
def test_offline_mode_is_told(folder):
    script = f"from cuvee.hub import push_folder; push_folder({str(folder)!r}, {REPO!r})"
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN},
    )  # fmt: skip
    assert "was not uploaded" in made.stderr and "ffline" in made.stderr and TOKEN not in made.stderr


@pytest.mark.parametrize("token", [None, "", "  "])
def test_no_token(folder, monkeypatch, token):
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    assert refused(ConfigError, folder, REPO).startswith("the environment variable HF_TOKEN is not set")


@pytest.mark.parametrize("token", [f"{TOKEN} {TOKEN}", f"{TOKEN}\r\nX: y", f"{TOKEN}\u00fc"])
def test_what_is_no_token_is_not_shown(folder, monkeypatch, hub, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert "holds no token" in refused(ConfigError, folder, REPO)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["blend", "a/b/c", "so me/x", "me/--x", "me/x.git", "", "me/", "../x"])
def test_bad_names_ask_nobody(folder, hub, name):
    assert "repo_id is" in refused(ConfigError, folder, name)
    assert hub.asked == []


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x", "http://", "http://[1"])
def test_a_bad_endpoint_is_named(folder, monkeypatch, endpoint):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "the environment variable HF_ENDPOINT is" in refused(ConfigError, folder, REPO)


def test_only_dataset_folders_are_pushed(tmp_path, hub):
    (tmp_path / "secrets.txt").write_text("x", encoding="utf-8")
    assert "not a dataset with the card" in refused(InputError, tmp_path, REPO)
    assert "not a dataset with the card" in refused(InputError, tmp_path / "nowhere", REPO)
    assert hub.asked == []
