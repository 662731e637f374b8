"""A blend as a dataset folder that ``datasets.load_dataset`` opens; blends and models on the Hugging Face hub.

Nothing is sent anywhere but by ``push_dataset`` and ``push_model``; inside ``without_hub`` nothing is fetched either.
The token comes from the environment variable HF_TOKEN alone: it is no argument, and stands in no file and no message.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cuvee._version import __version__
from cuvee.corpus import Corpus, write_corpus
from cuvee.corpus.files import fill_folder, replace_text
from cuvee.errors import ConfigError, HubError, InputError, MissingDependency
from cuvee.inputs import parse_yaml, read_text

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATA_FILE, CARD_FILE = "train.parquet", "README.md"
MODEL_FILE = "predictor.json"
_MODEL_PARTS = (MODEL_FILE, CARD_FILE, "probe.npz", "head.npz", "model")
Kind = Literal["dataset", "model"]
TOKEN_VARIABLE = "HF_TOKEN"
TAG = "cuvee"
_SECONDS = (5.0, 30.0, 30.0, 30.0)  # to connect, to read, to write, to wait for a free connection
_ENDPOINT = re.compile(r"(https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?(/\S*)?)?")
_REFUSALS = {
    401: (f"the hub does not know the token in {TOKEN_VARIABLE}", "make one that may write"),
    403: (f"the token in {TOKEN_VARIABLE} may not write to {{repo}}", "give it write access"),
    404: ("the hub has no {repo} that this token may see", "check the name"),
    429: ("the hub takes no more requests for now", "try again later"),
}


def write_dataset(folder: str | Path, corpus: Corpus, card: str, *, force: bool = False) -> Path:
    """Write ``train.parquet`` and its dataset card ``README.md``, both or neither.

    Args:
        folder: missing, empty, or a dataset written before, which is replaced.
        corpus: its rows.
        card: from ``cuvee.report.render_card``.
        force: replace the folder whatever is in it, as a run folder does with its own.

    Raises:
        InputError: the folder has other things in it, or cannot be written.
    """
    with fill_folder(folder, replaces=(lambda _folder: True) if force else is_dataset) as made:
        write_corpus(corpus, made / DATA_FILE)
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


def push_dataset(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a dataset folder to the Hugging Face hub in one commit, and return its address.

    The repository is made where it is missing. The token is that of the environment variable HF_TOKEN, the hub that
    of HF_ENDPOINT, https://huggingface.co by default.

    Args:
        folder: written by ``write_dataset``.
        repo_id: ``NAMESPACE/NAME``; the namespace is a user or an organisation.
        private: of a repository that is made. One that is there and public is refused then: the rows would be
            seen by all.

    Raises:
        InputError: the folder is no such dataset.
        ConfigError: no token, or not a name of a repository.
        HubError: the hub refused, failed, or could not be reached within seconds.
        MissingDependency: huggingface_hub is not installed.
    """
    path = Path(folder)
    if not is_dataset(path):
        raise InputError(f"{folder}: not a dataset folder ({DATA_FILE} and the {CARD_FILE} that Cuvée wrote beside it)")
    return _upload(path, [CARD_FILE, DATA_FILE], repo_id, "dataset", private=private)


def push_model(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload the folder of a trained model to the Hugging Face hub in one commit, and return its address.

    The repository, the token and the hub are as for ``push_dataset``. Hidden files and links stay behind.

    Args:
        folder: what a predictor saved, with its model card.
        repo_id: ``NAMESPACE/NAME``; the namespace is a user or an organisation.
        private: of a repository that is made; one that is there and public is refused then.

    Raises:
        InputError: the folder is no such model, has no card, or holds other things, which are not sent.
        ConfigError, HubError, MissingDependency: as for ``push_dataset``.
    """
    path = Path(folder)
    if not (path / MODEL_FILE).is_file() or not is_own_card(path / CARD_FILE):
        raise InputError(f"{folder}: not a model with its card ({MODEL_FILE} and the {CARD_FILE} that Cuvée wrote)")
    foreign = sorted(p.name for p in path.iterdir() if p.name not in _MODEL_PARTS and not p.name.startswith("."))
    if foreign:
        raise InputError(f"{folder}: holds {foreign[0]!r}, which is no part of the model; move it, and push again")
    found = [p.relative_to(path) for p in sorted(path.rglob("*")) if p.is_file() and not p.is_symlink()]
    names = [p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts)]
    return _upload(path, names, repo_id, "model", private=private)


def check_push(repo_id: str) -> None:
    """Refuse a push that would be refused for its name or token, before work is done for it. Nothing is sent.

    Raises:
        ConfigError: no token, or not a name of a repository.
        MissingDependency: huggingface_hub is not installed.
    """
    _connect(repo_id)


def _connect(repo_id: str) -> HfApi:
    token, endpoint = (os.environ.get(name, "").strip() for name in (TOKEN_VARIABLE, "HF_ENDPOINT"))
    if not token:
        raise ConfigError(f"the environment variable {TOKEN_VARIABLE} is not set; export a token that may write")
    if not (token.isascii() and token.isprintable() and " " not in token):  # an HTTP library would show it
        raise ConfigError(f"the environment variable {TOKEN_VARIABLE} holds no token: it has spaces or odd characters")
    if not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(f"the environment variable HF_ENDPOINT is {endpoint!r}; give https://HOST, or unset it")
    try:
        import huggingface_hub as hub
    except ImportError as exc:
        raise MissingDependency("the hub needs huggingface_hub: pip install 'cuvee[datasets]'") from exc
    if repo_id.count("/") != 1:
        raise ConfigError(f"repo_id is {repo_id!r}; give NAMESPACE/NAME, where the namespace is a user or organisation")
    return hub.HfApi(
        endpoint=endpoint.rstrip("/") or None, token=token, library_name="cuvee", library_version=__version__
    )


def _upload(folder: Path, names: Sequence[str], repo_id: str, kind: Kind, *, private: bool) -> str:
    """Send these files in one commit and return the address; what goes wrong is one line without the token."""
    api = _connect(repo_id)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # OSError, and the base of all errors of the HTTP library that huggingface_hub stands on
    wire = tuple(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))
    try:
        with _bounded():
            try:
                if not api.repo_info(repo_id, repo_type=kind, timeout=_SECONDS[1]).private and private:
                    raise ConfigError(
                        f"{repo_id} is there already, and public; ask for a public one, or choose another name"
                    )
            except HfHubHTTPError as exc:
                if exc.response.status_code not in (401, 404):  # the hub's answers where it has none
                    raise
                api.create_repo(repo_id, repo_type=kind, private=private)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                repo_type=kind,
                allow_patterns=[glob.escape(name) for name in names],
                commit_message=f"Write the {'blend' if kind == 'dataset' else 'model'} and its card",
            )
    except HFValidationError as exc:
        raise ConfigError(f"repo_id is {repo_id!r}: {' '.join(str(exc).split())}") from None
    except HfHubHTTPError as exc:
        status, said = exc.response.status_code, exc.server_message
        what, remedy = _REFUSALS.get(status, ("the hub refused {repo}", "see what it says"))
        told = f"{what.format(repo=repo_id)} ({status}){f' ({said})' if said else ''}; {remedy}"
    except wire as exc:
        told = f"{api.endpoint} could not be reached ({exc or type(exc).__name__}); check the network and HF_ENDPOINT"
    except (RuntimeError, ValueError, LookupError) as exc:  # an upload that broke, a card or an answer that is none
        told = f"{repo_id} was not uploaded ({exc} {exc.__cause__ or ''}); check its card and {TOKEN_VARIABLE}"
    else:
        return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    # not chained: the foreign message may hold what the server said of the token
    raise HubError(" ".join(told.replace(str(api.token), "***").split()))


@contextmanager
def _bounded() -> Iterator[None]:
    """Let no request of huggingface_hub wait for ever, as it does by itself, nor draw bars on the terminal."""
    from huggingface_hub import get_session
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    session, quiet = get_session(), are_progress_bars_disabled()
    before, session.timeout = session.timeout, _SECONDS
    disable_progress_bars()
    try:
        yield
    finally:
        session.timeout = before
        if not quiet:
            enable_progress_bars()


@contextmanager
def without_hub() -> Iterator[None]:
    """No model is fetched inside: what is not on this machine fails to load."""
    # loaded before the variable is set, since the package reads it once and keeps it
    hub = import_module("huggingface_hub.constants") if find_spec("huggingface_hub") else None
    kept, before = getattr(hub, "HF_HUB_OFFLINE", False), os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = True
        yield
    finally:
        if hub is not None:
            vars(hub)["HF_HUB_OFFLINE"] = kept
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


__all__ = [
    "HubError",
    "check_push",
    "is_dataset",
    "is_own_card",
    "push_dataset",
    "push_model",
    "without_hub",
    "write_dataset",
]
