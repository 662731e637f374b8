"""A blend as a dataset folder that ``datasets.load_dataset`` opens; blends and models on the Hugging Face hub.

Nothing is sent anywhere but by ``push_folder``; inside ``without_hub`` nothing is fetched either.
The token comes from the environment variable HF_TOKEN alone: it is no argument, and stands in no file and no message.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cuvee._version import __version__
from cuvee.corpus import Corpus, write_table
from cuvee.corpus.files import fill_folder, replace_text
from cuvee.corpus.table import BlendForm
from cuvee.errors import ConfigError, HubError, InputError, MissingDependency
from cuvee.inputs import parse_yaml, read_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATA_FILE, CARD_FILE = "train.parquet", "README.md"
MODEL_FILE = "predictor.json"
Kind = Literal["dataset", "model"]
_PARTS = {"dataset": (DATA_FILE, CARD_FILE), "model": (MODEL_FILE, CARD_FILE, "probe.npz", "model")}
TOKEN_VARIABLE = "HF_TOKEN"
TAG = "cuvee"
_REPO = re.compile(r"(?!.*(--|\.\.|\.git$))\w[\w.-]*\w?/\w[\w.-]*(?<![.-])", flags=re.ASCII)
_ENDPOINT = re.compile(r"(https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?(/\S*)?)?")


def write_dataset(
    folder: str | Path, corpus: Corpus, card: str, *, force: bool = False, form: BlendForm = "auto"
) -> Path:
    """Write ``train.parquet`` and its dataset card ``README.md``, both or neither.

    Args:
        folder: missing, empty, or a dataset written before, which is replaced.
        corpus: its rows.
        card: from ``cuvee.report.render_card``.
        force: replace the folder whatever it contains, as a run folder does with its blend.
        form: of rows of generation, as ``Corpus.to_trainers`` takes it.

    Raises:
        InputError: the folder has other things in it, or cannot be written.
    """
    with fill_folder(folder, replaces=(lambda _folder: True) if force else is_dataset) as made:
        write_table(corpus.to_trainers(form), made / DATA_FILE)
        replace_text(made / CARD_FILE, card)
    return Path(folder)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is what ``write_dataset`` wrote, and nothing else."""
    if not folder.is_dir() or {p.name for p in folder.iterdir()} != {DATA_FILE, CARD_FILE}:
        return False
    return is_own_card(folder / CARD_FILE)


def is_own_card(path: Path) -> bool:
    """Whether a card is one that Cuvée wrote: its front matter has our tag."""
    try:
        parts = read_text(path).split("---\n", 2)
        front = parse_yaml(parts[1], str(path))[1] if len(parts) == 3 else None
    except (InputError, ConfigError):
        return False
    tags = front.get("tags") if isinstance(front, dict) else None
    return isinstance(tags, list) and TAG in tags


def push_folder(folder: str | Path, repo_id: str, kind: Kind = "dataset", *, private: bool = True) -> str:
    """Upload what Cuvée wrote into a folder, no link and no hidden file, in one commit; returns the address on the hub.

    The repository is made where it is missing. The token is that of the environment variable HF_TOKEN, the hub that
    of HF_ENDPOINT, https://huggingface.co by default.

    Args:
        folder: of a dataset, written by ``write_dataset``; of a model, what a predictor saved, with its model card.
        repo_id: ``NAMESPACE/NAME``; the namespace is a user or an organisation.
        kind: what the folder holds.
        private: of a repository that is made. One that is there and public is refused then: the rows would be
            seen by all.

    Raises:
        InputError: the folder is no such dataset or model.
        ConfigError: no token, or not a name of a repository.
        HubError: the hub refused, failed, or could not be reached.
        MissingDependency: huggingface_hub is not installed.
    """
    path = Path(folder)
    if not (path / _PARTS[kind][0]).is_file() or not is_own_card(path / CARD_FILE):
        raise InputError(f"{path}: not a {kind} with the card that Cuvée wrote ({', '.join(_PARTS[kind][:2])})")
    api = open_hub(repo_id)
    from huggingface_hub.errors import HfHubHTTPError

    files = [p.relative_to(path) for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    own = [p for p in files if p.parts[0] in _PARTS[kind] and not any(part.startswith(".") for part in p.parts)]
    names = [glob.escape(p.as_posix()) for p in own]
    said = f"Write the {'blend' if kind == 'dataset' else 'model'} and its card"
    try:
        if not api.repo_exists(repo_id, repo_type=kind):
            api.create_repo(repo_id, repo_type=kind, private=private)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise ConfigError(f"{repo_id} is there already, and public; ask for a public one, or choose another name")
        api.upload_folder(repo_id=repo_id, folder_path=path, repo_type=kind, allow_patterns=names, commit_message=said)
    except ConfigError:
        raise
    except Exception as exc:  # noqa: BLE001 - of whatever HTTP library huggingface_hub stands on
        told = f"{exc.response.status_code} {exc.server_message}" if isinstance(exc, HfHubHTTPError) else str(exc)
        said = f"{told or type(exc).__name__} {exc.__cause__ or ''}".replace(str(api.token), "***")
    else:
        return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    # not chained: the foreign message may hold what the server said of the token
    raise HubError(
        f"{repo_id} was not uploaded to {api.endpoint} ({' '.join(said.split())}); check the name, the card, the "
        f"network, and that the token in {TOKEN_VARIABLE} may write"
    )


def open_hub(repo_id: str) -> HfApi:
    """The hub, for this repository: what would be refused for its name or the token is refused here. Nothing is sent.

    Raises:
        ConfigError: no token, or not a name of a repository.
        MissingDependency: huggingface_hub is not installed.
    """
    token, endpoint = (os.environ.get(name, "").strip() for name in (TOKEN_VARIABLE, "HF_ENDPOINT"))
    if not token:
        raise ConfigError(f"the environment variable {TOKEN_VARIABLE} is not set; export a token that may write")
    if not (token.isascii() and token.isprintable() and " " not in token):  # an HTTP library would show it
        raise ConfigError(f"the environment variable {TOKEN_VARIABLE} holds no token: it has spaces or odd characters")
    if not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(f"the environment variable HF_ENDPOINT is {endpoint!r}; give https://HOST, or unset it")
    try:
        from huggingface_hub import HfApi
    except ImportError as exc:
        raise MissingDependency("the hub needs huggingface_hub: pip install 'cuvee[datasets]'") from exc
    if not _REPO.fullmatch(repo_id):
        raise ConfigError(f"repo_id is {repo_id!r}; give NAMESPACE/NAME, where the namespace is a user or organisation")
    return HfApi(endpoint=endpoint.rstrip("/") or None, token=token, library_name="cuvee", library_version=__version__)


@contextmanager
def without_hub() -> Iterator[None]:
    """No model is fetched inside: what is not on this machine fails to load."""
    hub = import_module("huggingface_hub.constants") if find_spec("huggingface_hub") else None
    before = getattr(hub, "HF_HUB_OFFLINE", False)
    try:
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = True
        yield
    finally:
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = before
