"""What the page of one measured corpus shows, gathered from one subject: curves, parts, sample rows and a map."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee._version import __version__
from cuvee.errors import MissingDependency
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.examples import pick_extremes, score_examples
from cuvee.measure.metrics import METRICS
from cuvee.measure.parts import added_diversity, decompose_diversity
from cuvee.measure.semantic import order_profile, tau_profile
from cuvee.measure.shift import giveaways
from cuvee.measure.subject import EXACT_ROWS, Subject
from cuvee.records import DatasetMap, Measurement, MeasurementPage, MetricNote, Vectors

MapMethod = Literal["auto", "pca", "umap"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ALL_PAIRS = EXACT_ROWS // 5  # rows up to which curves and each row's scores are worth their all-pairs passes
_MOST_PARTS = 200
_UMAP_NEIGHBOURS = 15
_CHUNK = 4096  # rows centred at a time


def gather_page(
    subject: Subject,
    measurement: Measurement,
    parts: Mapping[str, Measurement] | None = None,
    *,
    by: str = "label",
    against_name: str = "",
    reproduce: str = "",
) -> MeasurementPage:
    """Everything that the page of a measurement shows.

    Curves over tau and q, each row's scores and what the synthetic rows add need all pairs of rows; above 20,000
    rows they are left out.

    Args:
        subject: what was measured.
        measurement: its numbers.
        parts: the numbers of each part alone, from ``measure_parts``.
        by: what the parts are.
        against_name: of the real rows.
        reproduce: the command or code that gives these numbers again.
    """
    small = subject.n <= _ALL_PAIRS
    corpus, real = subject.corpus, subject.against
    redundant, novel = pick_extremes(corpus, score_examples(subject)) if small and any(corpus.texts) else ((), ())
    labels = corpus.labels
    split = 1 < len(labels) <= _MOST_PARTS and small
    tested = real is not None and not subject.is_real and "c2st" in measurement.values
    return MeasurementPage(
        measurement=measurement,
        taus=tau_profile(subject) if small else None,
        orders=(order_profile(subject, "vendi"), *([order_profile(subject, "dcscore")] if small else [])),
        by_label=parts or {},
        by=by,
        decomposition=decompose_diversity(subject, corpus.targets) if split else (),
        added=added_diversity(subject) if real is not None and small and not subject.is_real else (),
        map=_draw_map(subject),
        redundant=redundant,
        novel=novel,
        giveaways=tuple((g.text, g.probability) for g in giveaways(subject)) if tested else (),
        notes={n: MetricNote(family=m.family, description=m.description, better=m.better) for n, m in METRICS.items()},
        against_name=against_name,
        against_rows=None if real is None else len(real),
        settings=_write_settings(subject),
        reproduce=reproduce,
        version=__version__,
    )


def _draw_map(subject: Subject) -> DatasetMap:
    """The map of the corpus, together with the real rows where there are any; by level where rows have one."""
    corpus, real = subject.corpus, None if subject.is_real else subject.against
    levels = [None if v is None else str(v) for v in corpus.table["level"].to_pylist()]
    by_level = len({v for v in levels if v is not None}) > 1
    groups = [v or "no level" for v in levels] if by_level else list(corpus.targets)
    if real is None:
        vectors, origins, texts = subject.unit, list(corpus.origins), list(corpus.texts)
    else:
        vectors = np.vstack([subject.unit, subject.against_unit])
        origins = ["synthetic"] * len(corpus) + ["real"] * len(real)
        texts = [*corpus.texts, *real.texts]
        groups += ["real"] * len(real) if by_level else list(real.targets)
    columns = MapColumns(origins=origins, groups=groups, texts=texts, grouping="level" if by_level else "label")
    return map_examples(vectors, columns, seed=subject.seed)


def _write_settings(subject: Subject) -> dict[str, str]:
    compute = subject.compute
    found = {"device": compute.device, "precision": compute.precision, "seed": str(subject.seed)}
    if subject.sample is not None:
        found["all pairs"] = f"{len(subject.sample):,} sampled rows against all {subject.n:,}"
    return found


# --- the map ---
@dataclass(frozen=True, slots=True, kw_only=True)
class MapColumns:
    """What is known of each row of a map: ``real`` or ``synthetic``, label or level, and the text; one each.

    ``grouping`` is what ``groups`` are, for the reader: ``label``, ``level``.
    """

    origins: Sequence[str]
    groups: Sequence[str]
    texts: Sequence[str]
    grouping: str = "label"


def map_examples(
    vectors: Vectors, columns: MapColumns, *, method: MapMethod = "auto", max_points: int = 1500, seed: int = 0
) -> DatasetMap:
    """Two coordinates for each of at most ``max_points`` examples.

    Principal components are those of all rows (covariance d x d, so memory does not grow with n); the sign of
    an axis is such that its largest loading is positive. UMAP (McInnes et al., arXiv 1802.03426, cosine, 15
    neighbours) is of the drawn rows only: its distances between clusters and their sizes mean nothing.

    Args:
        vectors: shape (n, d), one a row, finite.
        columns: of the same rows.
        method: ``auto`` is UMAP where the package ``umap-learn`` is installed, else principal components.
        max_points: above it, that many rows are drawn, each origin and group in its share.
        seed: of the draw, and of UMAP.

    Raises:
        ValueError: no rows, lengths that differ, another method, or no points.
        MissingDependency: ``method`` is ``umap`` and the package is not installed.
    """
    if vectors.ndim != 2 or vectors.size == 0:
        raise ValueError(f"vectors has shape {vectors.shape!r}; give (n, d) with at least one row and one dimension")
    if method not in get_args(MapMethod):
        raise ValueError(f"method is {method!r}; valid: {', '.join(map(repr, get_args(MapMethod)))}")
    if max_points < 1:
        raise ValueError(f"max_points is {max_points!r}; give at least 1")
    module = None if method == "pca" else _find_umap()
    if method == "umap" and module is None:
        raise MissingDependency('a map by UMAP needs the package umap-learn: pip install umap-learn, or method="pca"')
    rows = _draw_rows(list(zip(columns.origins, columns.groups, columns.texts, strict=True)), max_points, seed=seed)
    explained = None
    if module is not None and len(rows) > _UMAP_NEIGHBOURS:
        name, places = "umap", _umap(module, vectors[rows], seed)
    else:
        name = "pca"
        places, explained = _principal_components(vectors, rows)
    return DatasetMap(
        method=name,
        x=places[:, 0],
        y=places[:, 1],
        origin=tuple(columns.origins[i] for i in rows),
        group=tuple(columns.groups[i] for i in rows),
        text=tuple(columns.texts[i] for i in rows),
        explained=explained,
        rows=len(vectors),
        seed=seed,
        grouping=columns.grouping,
    )


def _draw_rows(examples: Sequence[tuple[str, str, str]], most: int, *, seed: int) -> Ints:
    """At most ``most`` rows in their old order, every origin and group in its share of them (largest remainders)."""
    n = len(examples)
    if n <= most:
        return np.arange(n)
    rng = derive_rng(seed, "map")
    members: dict[tuple[str, str], list[int]] = {}
    for row, (origin, group, _) in enumerate(examples):
        members.setdefault((origin, group), []).append(row)
    names = sorted(members)
    exact = np.array([len(members[name]) for name in names]) * (most / n)
    counts = np.floor(exact).astype(int)
    # the random second key: among many equally small groups, not always the first ones of the alphabet
    by_remainder = np.lexsort((rng.random(len(names)), counts - exact))
    counts[by_remainder[: most - counts.sum()]] += 1
    chosen = [rng.permutation(members[name])[:count] for name, count in zip(names, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


# --- principal components -----------------------------------------------------------------------------
def _principal_components(vectors: Vectors, rows: Ints) -> tuple[Floats, float | None]:
    """Coordinates of ``rows`` on the two widest directions of all vectors, and their share of the variance."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    d = vectors.shape[1]
    covariance = np.zeros((d, d))
    for start in range(0, len(vectors), _CHUNK):
        centred = vectors[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    axes, widths, _ = np.linalg.svd(covariance, hermitian=True)
    total = float(widths.sum())
    places = np.zeros((len(rows), 2))
    if total <= len(vectors) * np.finfo(np.float32).eps ** 2 * d:  # all rows alike: what is left is rounding
        return places, None
    for axis in range(min(2, d)):
        loadings = axes[:, axis]
        sign = np.sign(loadings[np.argmax(np.abs(loadings))])
        places[:, axis] = sign * ((vectors[rows] - mean) @ loadings)
    return places, float(widths[:2].sum() / total)


# --- UMAP ---------------------------------------------------------------------------------------------
def _find_umap() -> ModuleType | None:
    """The package umap-learn; another package of the name ``umap`` does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it says that TensorFlow, not needed here, is missing
        try:
            module = importlib.import_module("umap")
        except ImportError:
            return None
    return module if hasattr(module, "UMAP") else None


def _umap(module: ModuleType, vectors: Vectors, seed: int) -> Floats:
    model = module.UMAP(
        n_components=2,
        n_neighbors=_UMAP_NEIGHBOURS,
        metric="cosine",
        random_state=derive_seed(seed, "umap") % 2**32,
        n_jobs=1,  # a fixed seed allows no more, and saying so keeps it from warning
    )
    return np.asarray(model.fit_transform(vectors), dtype=np.float64)
