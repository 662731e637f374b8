"""Fine-tunes a retriever: one sentence encoder for queries and passages, with in-batch negatives.

The model is a ``SentenceTransformer`` and is saved as one, so that sentence-transformers opens it again. Imports torch
and sentence-transformers.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import DEFAULT_ENCODER, Encoder, find_minilm
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.language_models import choose_device, explain_memory, loading_model, quiet_loading
from cuvee.model_files import load_files
from cuvee.records import Codes, Vectors
from cuvee.train.finetuning import ParameterGroup, merge_lora, prepare_training
from cuvee.train.loop import fine_tune
from cuvee.train.settings import Description, Training, TrainSettings, fill_settings, given, write_description
from cuvee.train.weighting import RowScores

_MODEL = "model"
_PROMPTS = {"query": ("query",), "passage": ("document", "passage", "corpus")}
# Of models that want some and do not say so: name of the model -> beginnings of queries and of passages.
_KNOWN_PROMPTS: tuple[tuple[str, str, str], ...] = (
    (r"e5-.*instruct", "Instruct: Given a search query, retrieve relevant passages\nQuery: ", ""),
    (r"(^|[-_])e5-", "query: ", "passage: "),
    (r"bge-.*-en\b", "Represent this sentence for searching relevant passages: ", ""),
    (
        r"bge-.*-zh\b",
        "\u4e3a\u8fd9\u4e2a\u53e5\u5b50\u751f\u6210\u8868\u793a\u4ee5\u7528\u4e8e\u68c0\u7d22\u76f8\u5173\u6587\u7ae0\uff1a",
        "",
    ),
)
_TOO_NEAR = 0.95  # of the true passage's cosine: above it a passage may well be an answer too
_PREDICT_BATCH = 64
_RANKED = 512  # queries whose scores of all passages are held at once
_MAX_LENGTH, _TEMPERATURE = 256, 0.05
Side = Literal["query", "passage"]


def train_retriever(training: Training) -> BiEncoder:
    """Fine-tune ``settings.model`` (by default all-MiniLM-L6-v2) for exactly ``settings.steps`` steps.

    The log probability of a row is the log softmax, at its passage, of the cosines of its query with the distinct
    passages of the batch, over ``settings.temperature`` (van den Oord et al. 2018, arXiv 1807.03748). Passages that
    the training rows pair with the same query elsewhere are no negatives of it. With ``hard_negatives`` each row also
    brings so many of the training passages that are nearest to its query before any training, but for those of over
    95% of the cosine of its own passage (Moreira et al. 2024, arXiv 2407.15831).

    Raises:
        TrainingError: one passage only, out of memory, or a loss that is not finite.
        MissingDependency, InputError: sentence-transformers or the model cannot be loaded.
        ConfigError: another task, an unknown device, or a setting it has no use for.
    """
    corpus = training.corpus
    if corpus.task != "retrieval":
        raise ConfigError(f"trainer 'retriever' is for task 'retrieval', not {corpus.task!r}")
    settings = fill_settings(
        "retriever", training.settings, model=DEFAULT_ENCODER, device="auto", temperature=_TEMPERATURE
    )
    model = BiEncoder.from_pretrained(settings)
    model.backbone = prepare_training(model.backbone, settings)
    rows = RetrieverRows(model, corpus, training.validation)
    if len(set(map(normalise_text, corpus.targets))) < 2:
        raise TrainingError("all training rows have the same passage, so there are no negatives; give rows of others")
    fine_tune(rows, replace(training, settings=settings))
    model.backbone = merge_lora(model.backbone)
    return model


def load_retriever(folder: Path, description: Description, encoder: Encoder | None) -> BiEncoder:
    """The retriever that ``BiEncoder.save`` wrote.

    Raises:
        InputError: files are missing or broken. ConfigError: an unknown device.
    """
    del encoder
    return load_body(folder, description)


def load_body(folder: Path, description: Description) -> BiEncoder:
    """The model that ``BiEncoder.save_model`` wrote.

    Raises:
        InputError: files are missing or broken. ConfigError: an unknown device.
    """
    settings = description.settings
    where = choose_device(settings.device or "auto")
    if not (folder / _MODEL).is_dir():  # the path would be taken for a name on the hub
        raise InputError(f"{folder / _MODEL}: no such folder; train again")
    model = _load_model.__wrapped__(str(folder / _MODEL))
    if settings.max_length is not None:
        if settings.max_length > (positions := _count_positions(model)):
            raise InputError(f"{folder}: max_length is {settings.max_length}, the model reads {positions}; train again")
        model.max_seq_length = settings.max_length
    return BiEncoder(model, where, settings)


class BiEncoder:
    """A ``SentenceTransformer`` that embeds queries and passages, with its prompts for either if it has any.

    Args:
        model: the model; a plain transformer is mean-pooled by sentence-transformers.
        device: where it lives.
        settings: how it is trained, nothing left open.
    """

    def __init__(self, model: SentenceTransformer, device: torch.device, settings: TrainSettings) -> None:
        self.model = model.to(device)
        self.device = device
        self.settings = replace(settings, max_length=self.max_length)

    @classmethod
    def from_pretrained(cls, settings: TrainSettings) -> BiEncoder:
        """A fresh copy of the model that ``settings`` name (a folder, or a name on the hub).

        It reads texts of ``max_length`` tokens: where that is left open, what the model says itself, at most 256.

        Raises:
            InputError: the model cannot be loaded. ConfigError: an unknown device, or too large a max_length.
        """
        where, model, max_length = choose_device(given(settings.device)), given(settings.model), settings.max_length
        loaded = copy.deepcopy(_load_model(find_minilm() if model == DEFAULT_ENCODER else model))
        positions = _count_positions(loaded)
        if max_length is not None and max_length > positions:
            raise ConfigError(f"max_length is {max_length}; model {model!r} reads at most {positions} tokens")
        if not any(loaded.prompts.values()):
            name = Path(model).name.lower()
            found = next((both for pattern, *both in _KNOWN_PROMPTS if re.search(pattern, name)), ["", ""])
            loaded.prompts = {**loaded.prompts, **dict(zip(("query", "document"), found, strict=True))}
        loaded.max_seq_length = max_length or min(loaded.get_max_seq_length() or _MAX_LENGTH, _MAX_LENGTH)
        return cls(loaded, where, settings)

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read."""
        return int(self.model.max_seq_length)

    @property
    def temperature(self) -> float:
        """Of the softmax over passages."""
        return self.settings.temperature or _TEMPERATURE

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
        return self.encode(texts, "query")

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
        return self.encode(texts, "passage")

    def score_rows(self, corpus: Corpus) -> RowScores:
        """Log softmax of each row's passage among those of all rows, and whether it stands first of them."""
        return _rank_pairs(self, _Pairs(corpus.texts, corpus.targets))

    def save(self, folder: Path) -> None:
        """Write the model, and ``predictor.json``."""
        self.save_model(folder)
        write_description(folder, Description(kind="retriever", labels=(), settings=self.settings, extra={}))

    def save_model(self, folder: Path) -> None:
        """Write the model to ``folder/model`` as sentence-transformers does."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_loading():
            self.model.save(str(folder / _MODEL), create_model_card=False)

    def embed(self, texts: Sequence[str], side: Side) -> torch.Tensor:
        """Unit vectors with their graph, float32, shape (len(texts), d)."""
        features = self.model.preprocess(list(texts), prompt=self._prompt(side))
        moved = {name: v.to(self.device) if isinstance(v, torch.Tensor) else v for name, v in features.items()}
        vectors: torch.Tensor = self.model(moved)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def encode(self, texts: Sequence[str], side: Side) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d).

        Raises:
            TrainingError: out of memory.
        """
        if not texts:
            return np.zeros((0, int(self.model.get_embedding_dimension() or 0)), dtype=np.float32)
        remedy = f"lower max_length (now {self.max_length}), or set device: cpu"
        with explain_memory(self.device, remedy):
            vectors = self.model.encode(
                list(texts),
                prompt=self._prompt(side),
                batch_size=_PREDICT_BATCH,
                show_progress_bar=False,
                normalize_embeddings=True,
                convert_to_numpy=True,
            )
        found: Vectors = np.asarray(vectors, dtype=np.float32)
        return found

    @property
    def backbone(self) -> PreTrainedModel:
        """The transformer inside."""
        return self.model[0].model

    @backbone.setter
    def backbone(self, backbone: PreTrainedModel) -> None:
        self.model[0].model = backbone

    def _prompt(self, side: Side) -> str | None:
        prompts: dict[str, str] = self.model.prompts
        found = next((prompts[name] for name in _PROMPTS[side] if prompts.get(name)), None)
        # an empty one, so that sentence-transformers takes no default either
        return found if found is not None else ""


class RetrieverRows:
    """A bi-encoder with the rows it is trained on, for the training loop.

    Args:
        model: what to train, with learning rate and temperature in its settings.
        corpus: n rows: query and passage.
        validation: real rows held out.
    """

    def __init__(self, model: BiEncoder, corpus: Corpus, validation: Corpus | None) -> None:
        self._model, self.device = model, model.device
        self._pairs = _Pairs(corpus.texts, corpus.targets)
        self._negatives = self._mine(model.settings.hard_negatives or 0)
        self._held_out = _Pairs(*(([], []) if validation is None else (validation.texts, validation.targets)))
        self.held_out = len(self._held_out.queries)
        self.module: torch.nn.Module = model.model
        self.groups = (ParameterGroup(tuple(model.model.parameters()), given(model.settings.learning_rate)),)

    def _mine(self, wanted: int) -> Codes:
        """Rows whose passages are the nearest wrong ones to each row's query, shape (n, wanted); -1 where none is."""
        pairs, model = self._pairs, self._model
        everything = np.arange(len(pairs.queries))
        out = np.full((len(everything), wanted), -1, dtype=np.int64)
        columns, own = pairs.columns(everything)
        if not wanted:
            return out
        queries = model.encode(pairs.queries, "query")
        passages = model.encode([pairs.passages[i] for i in columns], "passage")
        for start in range(0, len(everything), _RANKED):
            rows = everything[start : start + _RANKED]
            cosines = np.round(queries[rows] @ passages.T, 6)
            true = cosines[np.arange(len(rows)), own[rows]][:, None]
            wrong = pairs.others(rows, columns, own[rows]) | (cosines > _TOO_NEAR * true)
            wrong[np.arange(len(rows)), own[rows]] = True
            cosines[wrong] = -np.inf
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :wanted]
            found = np.where(np.isfinite(np.take_along_axis(cosines, best, axis=1)), np.array(columns)[best], -1)
            out[rows, : found.shape[1]] = found
        return out

    def log_p(self, rows: Codes) -> torch.Tensor:
        """Log softmax over the distinct passages of the batch at each row's own, shape (b,).

        Its scores are cosines over the temperature, one line a row.
        """
        pairs, beside = self._pairs, self._negatives[rows].ravel()
        columns, own = pairs.columns(np.concatenate([rows, beside[beside >= 0]]))
        own = own[: len(rows)]
        queries = self._model.embed([pairs.queries[i] for i in rows], "query")
        passages = self._model.embed([pairs.passages[i] for i in columns], "passage")
        # cosines over a small temperature need more digits than bfloat16 has
        with torch.autocast(self.device.type, enabled=False):
            cosines = queries @ passages.T / self._model.temperature
        logits = cosines.masked_fill(torch.from_numpy(pairs.others(rows, columns, own)).to(self.device), -torch.inf)
        return -torch.nn.functional.cross_entropy(logits, torch.from_numpy(own).to(self.device), reduction="none")

    def validate(self) -> float:
        """Mean log softmax of the validation rows over all their passages, shape ()."""
        return float(_rank_pairs(self._model, self._held_out).log_p.mean())


def _rank_pairs(model: BiEncoder, pairs: _Pairs) -> RowScores:
    """Rank the passage of each row among the distinct passages of all; others of the same query do not count."""
    everything = np.arange(len(pairs.queries))
    columns, own = pairs.columns(everything)
    queries = torch.from_numpy(model.encode(pairs.queries, "query"))
    passages = torch.from_numpy(model.encode([pairs.passages[i] for i in columns], "passage"))
    log_p, first = np.zeros(len(everything)), np.zeros(len(everything), dtype=np.bool_)
    for start in range(0, len(everything), _RANKED):
        rows = everything[start : start + _RANKED]
        masked = torch.from_numpy(pairs.others(rows, columns, own[rows]))
        scores = (queries[rows] @ passages.T / model.temperature).masked_fill(masked, -torch.inf)
        truth = torch.from_numpy(own[rows])
        log_p[rows] = -torch.nn.functional.cross_entropy(scores, truth, reduction="none").double().numpy()
        first[rows] = (scores[torch.arange(len(rows)), truth] >= scores.max(dim=1).values).numpy()
    return RowScores(log_p=log_p, agrees=first)


class _Pairs:
    """Rows of query and passage, and which of them say the same."""

    def __init__(self, queries: Sequence[str], passages: Sequence[str]) -> None:
        self.queries, self.passages = queries, passages
        self._query_codes = _code([normalise_text(text) for text in queries])
        self.passage_codes = _code([normalise_text(text) for text in passages])
        self._relevant: dict[int, set[int]] = {}
        for query, passage in zip(self._query_codes.tolist(), self.passage_codes.tolist(), strict=True):
            self._relevant.setdefault(query, set()).add(passage)

    def columns(self, rows: Codes) -> tuple[list[int], Codes]:
        """A row for each distinct passage of ``rows``, and the place of each row's passage among them."""
        places: dict[int, int] = {}
        columns: list[int] = []
        for row in rows.tolist():
            if places.setdefault(int(self.passage_codes[row]), len(places)) == len(columns):
                columns.append(row)
        return columns, np.array([places[int(self.passage_codes[row])] for row in rows], dtype=np.int64)

    def others(self, rows: Codes, columns: Sequence[int], own: Codes) -> NDArray[np.bool_]:
        """True where a passage is relevant for a row's query, but is not that row's own, shape (b, columns)."""
        places = {int(self.passage_codes[row]): place for place, row in enumerate(columns)}
        out = np.zeros((len(rows), len(columns)), dtype=np.bool_)
        for line, row in enumerate(rows.tolist()):
            relevant = self._relevant[int(self._query_codes[row])]
            out[line, [places[code] for code in relevant if code in places]] = True
        out[np.arange(len(rows)), own] = False
        return out


def _count_positions(model: SentenceTransformer) -> float:
    """Tokens that a model can read, infinite where it does not say."""
    return getattr(model.transformers_model.config, "max_position_embeddings", None) or math.inf


def _code(texts: Sequence[str]) -> Codes:
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(text, len(codes)) for text in texts], dtype=np.int64)


@lru_cache(maxsize=1)
def _load_model(model: str) -> SentenceTransformer:
    """Loaded once a process (it takes seconds); callers train a copy."""

    def load(online: bool) -> SentenceTransformer:
        given = {"local_files_only": not online, "trust_remote_code": False, "model_kwargs": {"dtype": torch.float32}}
        with loading_model(model):
            return SentenceTransformer(model, device="cpu", **given)

    found = load_files(f"model {model!r}", load, local=Path(model).is_dir())
    if found.transformers_model is None:
        raise InputError(f"model {model!r} holds no transformer, so it cannot be fine-tuned; give a sentence encoder")
    return found
