"""How long a study's encoder and its measurements take here, on real texts of the study."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.config import FileGenerator
from cuvee.encoders.loading import build_encoder
from cuvee.errors import CuveeError
from cuvee.hub import without_hub
from cuvee.measure import measure_corpus
from cuvee.records import Level
from cuvee.study.guard import held_out_texts
from cuvee.study.judging import make_judging
from cuvee.study.known import KnownVectors
from cuvee.study.planned_requests import DialPlan
from cuvee.study.planned_timing import stand_in_encoder, stand_in_pool
from cuvee.study.pools import SPREAD_TEXTS
from cuvee.study.setup import Study

_EMBEDDED_S = 3.0
_SAMPLES = (4, 64, 256)
"""Texts that are embedded to time it: encoders take 64 at a time, fewer for the sake of slow ones."""
_WARM_ROWS, _MEASURED_ROWS = 12, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTime:
    """Seconds of embedding a study's texts and of measuring its pools.

    Attributes:
        texts: to be embedded: real rows and planned ones, each once.
        embedding: of all of them, the loading of the encoder with them; None where it could not be timed.
        measuring: of every pool and the real rows, without embedding; None where it could not be timed.
        notes: what was not timed, and what the numbers rest on.
    """

    texts: int
    embedding: float | None
    measuring: float | None
    notes: tuple[str, ...] = ()


def time_embedding(
    study: Study, levels: Sequence[Level], dials: Sequence[DialPlan], *, workers: int | None
) -> EmbeddingTime:
    """Embed a sample of the real training texts, measure a stand-in of a pool, and reckon the rest from these.

    Args:
        study: prepared.
        levels: whose pools are measured.
        dials: what is asked for.
        workers: that many texts are spread over; None where that is not known.
    """
    texts = count_texts(study, levels, dials)
    spread = workers or 1 if study.config.execute.kind != "local" and texts >= SPREAD_TEXTS else 1
    notes = []
    try:
        embedding = _time_texts(study, texts, spread)
    except CuveeError as exc:
        embedding = None
        notes.append(f"time of embedding is not known ({exc}); plan downloads nothing")
    rows = _pool_rows(study, dials)
    try:
        measuring = _time_measuring(study, levels, rows)
    except (CuveeError, ValueError) as exc:
        measuring = None
        notes.append(f"time of measuring is not known ({exc})")
    if measuring is not None and rows > _MEASURED_ROWS:
        notes.append(f"measuring was timed on {_MEASURED_ROWS} rows and drawn out to {rows:,}: roughly")
    return EmbeddingTime(texts=texts, embedding=embedding, measuring=measuring, notes=tuple(notes))


def count_texts(study: Study, levels: Sequence[Level], dials: Sequence[DialPlan]) -> int:
    """Real training, validation and test texts, passages, and the rows of all pools and of the confirmation."""
    real = len(study.train) + len(study.split.validation) + len(study.split.test)
    passages = len(make_judging(study.config.evaluate).passages)
    if isinstance(study.config.generator, FileGenerator):
        draws = study.config.draws
        pools = len(levels) * sum(study.block_rows().values()) * (draws.generation + draws.confirm)
    else:
        pools = sum(dial.rows for dial in dials) + max((dial.confirm_rows for dial in dials), default=0)
    return real + passages + pools


def _time_texts(study: Study, texts: int, spread: int) -> float:
    """Seconds of loading the encoder and embedding so many texts; the cache is neither read nor filled."""
    sample = study.train.texts
    with without_hub():
        encoder = build_encoder(study.config.encoder)
        begun = time.perf_counter()
        encoder.encode(sample[:1])
        start = time.perf_counter() - begun
        each = 0.0
        for rows in _SAMPLES:
            part = [sample[i % len(sample)] for i in range(rows)]
            begun = time.perf_counter()
            encoder.encode(part)
            took = time.perf_counter() - begun
            each = took / rows
            if took > _EMBEDDED_S / 2 or rows >= texts:
                break
    return start + each * texts / spread


def _pool_rows(study: Study, dials: Sequence[DialPlan]) -> int:
    """Rows of a pool that are measured: those of the draws that every level has."""
    draws = min((dial.draws for dial in dials), default=study.config.draws.generation)
    return sum(study.block_rows().values()) * draws


def _time_measuring(study: Study, levels: Sequence[Level], rows: int) -> float:
    """Seconds of measuring every pool and the real rows, with vectors that cost nothing."""
    blocks = math.ceil(rows / sum(study.block_rows().values()))
    pool = stand_in_pool(study, levels[0].dial, levels[0].name, range(blocks))
    held_out = held_out_texts(study)
    encoder = KnownVectors(
        stand_in_encoder(study), [*study.train.texts, *held_out, *pool.texts], source=study.config.encoder
    )

    def measure(count: int) -> float:
        begun = time.perf_counter()
        measure_corpus(
            pool, against=study.train, held_out=held_out, encoder=encoder, rows=min(count, len(pool)),
            seed=study.config.seed,
        )  # fmt: skip
        return time.perf_counter() - begun

    measure(_WARM_ROWS)  # libraries are loaded
    most = min(rows, _MEASURED_ROWS)
    took = measure(most)
    if rows > most:
        half = measure(most // 2)
        grows = min(2.0, max(1.0, math.log2(max(took, 1e-3) / max(half, 1e-3))))
        took *= (rows / most) ** grows
    return took * (len(levels) + 1)
