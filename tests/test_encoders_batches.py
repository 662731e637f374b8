"""Many texts: in batches, into mapped files, with the vectors that one call gives."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder, build_encoder, empty_rows, load_encoder, models
from cuvee.encoders.loading import CachedEncoder
from cuvee.errors import ConfigError
from cuvee.mix import Agreement, Dedupe, Leak, apply_filters

TEXTS = [f"{word} number {n} of {n % 7}" for n in range(60) for word in ("row", "Zeile")]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(models, "BATCH", 16)
    monkeypatch.setattr(models, "MAPPED_BYTES", 1)


def plain(text: str) -> np.ndarray:
    """The n-grams of a text one by one, as the encoder is described."""
    out = np.zeros(512, dtype=np.float32)
    for word in (f" {part} " for part in text.casefold().split()):
        for size in (3, 4, 5):
            for start in range(max(1, len(word) - size + 1)):
                code = zlib.crc32(word[start : start + size].encode("utf-8", "surrogatepass"))
                out[code % 512] += 1.0 if code & 0x80000000 else -1.0
    return np.sign(out) * np.sqrt(np.abs(out))


@given(st.lists(st.text(max_size=12), max_size=8))
def test_hashed_texts_are_counted_together_as_one_by_one(texts):
    found = HashingEncoder().encode(texts)
    assert found.shape == (len(texts), 512) and found.dtype == np.float32
    for text, vector in zip(texts, found, strict=True):
        one = plain(text)
        length = float(np.linalg.norm(one))
        np.testing.assert_allclose(vector, one / length if length else one, rtol=1e-6)


@pytest.mark.usefixtures("small")
def test_many_rows_lie_in_a_file_that_leaves_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = empty_rows(5, 3)
    rows[:] = np.arange(15).reshape(5, 3)
    assert isinstance(rows.base, np.memmap) and rows.sum() == 105 and not list(tmp_path.iterdir())
    assert empty_rows(0, 3).shape == (0, 3)


@pytest.mark.usefixtures("small")
def test_a_cache_in_batches_gives_what_it_gives_at_once(tmp_path):
    cached = CachedEncoder(HashingEncoder(), tmp_path / "a")
    expected = HashingEncoder().encode(TEXTS)
    assert np.array_equal(cached.encode(TEXTS), expected)
    assert np.array_equal(CachedEncoder(HashingEncoder(), tmp_path / "a").encode(TEXTS[::-1]), expected[::-1])


def test_filters_in_batches_remove_the_same_rows_for_the_same_reasons(monkeypatch):
    rows = [{"text": text, "target": "ab"[n % 2]} for n, text in enumerate([*TEXTS, *TEXTS[:9]])]
    pool, train = Corpus.from_rows(rows, origin="synthetic"), Corpus.from_rows(rows[::9])
    held_out = [text.upper() for text in TEXTS[40:50]]
    leak = Leak(held_out=held_out, reference=train.texts)
    near = Dedupe(near=0.93, against=["row number 3 of 4"])
    agreement = Agreement(train=train, top=0.8, seed=0)
    for filters in ([leak, near, agreement], [near, leak, agreement], [leak, agreement]):
        expected = apply_filters(pool, filters, encode=HashingEncoder().encode)
        with monkeypatch.context() as patch:
            patch.setattr(models, "BATCH", 16)
            patch.setattr(models, "MAPPED_BYTES", 1)
            found = apply_filters(pool, filters, encode=HashingEncoder().encode)
        assert found.removed == expected.removed != () and found.steps == expected.steps
        assert found.corpus.table.equals(expected.corpus.table)


@pytest.mark.usefixtures("small")
def test_leaks_on_many_rows_are_told_without_keeping_all_vectors():
    seen: list[int] = []

    def encode(texts):
        seen.append(len(texts))
        return HashingEncoder().encode(texts)

    pool = Corpus.from_rows([{"text": text, "target": "a"} for text in TEXTS], origin="synthetic")
    apply_filters(pool, [Leak(held_out=["something else"])], encode=encode)
    assert max(seen) == 16 and sum(seen) == len(TEXTS) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm@float32", "minilm@bfloat16"])
def test_a_text_has_the_same_vector_whatever_it_is_embedded_with(name):
    pytest.importorskip("sentence_transformers")
    texts = [*TEXTS[:40], "", "a longer text " * 20, TEXTS[0]]
    encoder = build_encoder(name)
    together = encoder.encode(texts)
    assert np.array_equal(encoder.encode(texts[::-1])[::-1], together)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in texts]), together, atol=1e-6)
    assert np.array_equal(together[0], together[-1]) and encoder.name == name


@pytest.mark.slow
def test_bfloat16_is_another_encoder_with_a_cache_of_its_own_and_nearly_the_same_vectors(tmp_path):
    pytest.importorskip("sentence_transformers")
    long, short = (load_encoder(name, cache=tmp_path) for name in ("minilm@float32", "minilm@bfloat16"))
    assert long.hash != short.hash
    cosine = (long.encode(TEXTS) * short.encode(TEXTS)).sum(axis=1)
    assert 0.999 < cosine.min() < cosine.max() <= 1.00001 and cosine.min() < 0.9999999
    assert len(list((tmp_path / "embeddings").glob("*.sqlite"))) == 2


def test_what_is_no_model_has_no_precision():
    for name in ("hashing@bfloat16", "own_module:Encoder@bfloat16"):
        with pytest.raises(ConfigError, match="leave @bfloat16 out"):
            build_encoder(name)


def test_words_beyond_what_a_model_reads_change_no_vector():
    encoder = load_encoder("minilm")
    long = "the card was stolen in town and " * 100
    assert np.array_equal(*(encoder.encode([text]) for text in (long, long + "nobody reads this " * 20_000)))
