"""The retriever: a tiny bi-encoder for all that is exact, MiniLM on real questions for what it is for."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.evaluate import evaluate_model
from cuvee.train import Training, TrainSettings, load_predictor, train_model
from cuvee.train.settings import Retriever

pytestmark = pytest.mark.slow  # each is quick, together they are not
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

TOPICS = {
    "sports": "goal match team league striker coach cup referee".split(),
    "tech": "software chip phone internet laptop browser server code".split(),
    "money": "bank shares profit market price inflation trade budget".split(),
    "food": "bread salt oven recipe butter flour sugar spice".split(),
}


def corpus(n, seed, origin="real"):
    """Questions of two words of a topic, whose passage has its other words."""
    rng = np.random.default_rng(seed)
    rows = []
    for words in TOPICS.values():
        for _ in range(n):
            order = rng.permutation(words).tolist()
            rows.append({"text": " ".join(order[:2]), "target": " ".join(order[2:6])})
    return Corpus.from_rows(rows, origin=origin, task="retrieval")


REAL, POOL, HELD_OUT = corpus(3, 1), corpus(4, 2, "synthetic"), corpus(6, 3)
BLEND = REAL.joined(POOL)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A BERT of two layers and 32 dimensions with random weights, as transformers saves one."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(w for ws in TOPICS.values() for w in ws)]
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def one_thread():
    """The tiny model gains nothing from a second thread, and waits for it when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def start(tiny_model):
    return TrainSettings(
        trainer="retriever", model=tiny_model, device="cpu", steps=4, batch_size=6, learning_rate=1e-3, max_length=32
    )


def train(settings, rows=BLEND, **changes):
    return train_model(rows, settings=dataclasses.replace(settings, **changes))


def weights_of(ranker):
    return np.concatenate([p.numpy().ravel() for p in ranker.model.state_dict().values()])


def test_training_brings_questions_to_their_passages(start):
    before = evaluate_model(train(start, steps=1, learning_rate=1e-9), HELD_OUT, intervals=False)
    after = evaluate_model(train(start, steps=60), HELD_OUT, intervals=False)
    assert after.values["mrr@10"].value > before.values["mrr@10"].value + 0.05


def test_a_saved_retriever_is_the_same_and_opens_in_sentence_transformers(start, tmp_path):
    ranker = train(start)
    assert isinstance(ranker, Retriever)
    ranker.save(tmp_path / "r")
    again = load_predictor(tmp_path / "r")
    assert again.settings == ranker.settings
    vectors = ranker.encode_queries(HELD_OUT.texts)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(again.encode_queries(HELD_OUT.texts), vectors)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "r" / "model"), device="cpu")
    assert theirs.max_seq_length == 32
    found = theirs.encode_query(HELD_OUT.texts, normalize_embeddings=True)
    assert found == pytest.approx(vectors, abs=1e-6)
    assert ranker.encode_passages([]).shape == (0, 32)


def test_equal_settings_give_equal_bits_and_another_seed_does_not(start):
    state = torch.get_rng_state()
    one, same, other = weights_of(train(start)), weights_of(train(start)), weights_of(train(start, seed=1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_source_weights_of_zero_and_one_are_real_only_and_pooled(start):
    weighted = {w: weights_of(train(start, loss="source_weight", source_weight=w)) for w in (0.0, 0.5, 1.0)}
    assert np.array_equal(weighted[0.0], weights_of(train(start, REAL)))
    assert np.array_equal(weighted[1.0], weights_of(train(start)))
    assert not np.array_equal(weighted[0.5], weighted[1.0])


def in_batch(start, rows, at, temperature=0.5):
    """log p of a batch by the trainer's rows, and the cosines it stands on."""
    from cuvee.train.retriever import BiEncoder, RetrieverRows

    model = BiEncoder.from_pretrained(dataclasses.replace(start, temperature=temperature))
    trained = RetrieverRows(model, rows, None)
    found = trained.log_p(np.array(at)).detach().numpy()
    queries = model.encode([rows.texts[i] for i in at], "query")
    passages = model.encode([rows.targets[i] for i in at], "passage")
    return found, queries @ passages.T


def test_hard_negatives_are_the_nearest_wrong_passages(start):
    from cuvee.train.retriever import BiEncoder, RetrieverRows

    rows = REAL.joined(Corpus.from_rows([{"text": REAL.texts[0], "target": REAL.targets[5]}], task="retrieval"))
    model = BiEncoder.from_pretrained(dataclasses.replace(start, hard_negatives=3))
    trained = RetrieverRows(model, rows, None)
    cosines = model.encode(rows.texts, "query") @ model.encode(rows.targets, "passage").T
    for row, found in enumerate(trained._negatives):
        limit = 0.95 * cosines[row, row]
        allowed = [
            i for i in range(len(rows) - 1)
            if cosines[row, i] < limit and i != row and not (row in (0, len(rows) - 1) and i in (0, 5))
        ]  # fmt: skip
        best = sorted(allowed, key=lambda i: -cosines[row, i])[:3]
        assert [int(i) for i in found if i >= 0] == pytest.approx(best)
    at = np.array([0, 4])
    columns = {0, 4, *(int(i) for i in trained._negatives[at].ravel() if i >= 0)}
    scores = cosines[at] / model.temperature
    others = {0: {0, 5}, 4: {4}}  # passages of the same query do not count, but for the row's own
    expected = [
        scores[i, row] - np.log(sum(np.exp(scores[i, c]) for c in columns - (others[row] - {row})))
        for i, row in enumerate(at.tolist())
    ]
    assert trained.log_p(at).detach().numpy() == pytest.approx(expected, abs=1e-3)
    assert not np.array_equal(weights_of(train(start)), weights_of(train(start, hard_negatives=2)))


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("multilingual-e5-small", "query: ", "passage: "),
        ("e5-base-v2", "query: ", "passage: "),
        ("bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("bge-m3", "", ""),
        ("gte-small", "", ""),
    ],
)
def test_prompts_follow_from_the_name_of_the_model_and_are_saved_with_it(
    tiny_model, start, tmp_path, name, query, passage
):
    shutil.copytree(tiny_model, tmp_path / name)
    ranker = train(start, model=str(tmp_path / name), steps=1, learning_rate=1e-9)
    plain = train(start, steps=1, learning_rate=1e-9)
    assert np.allclose(ranker.encode_queries(["goal"]), plain.encode_queries([f"{query}goal"]), atol=1e-5)
    assert np.allclose(ranker.encode_passages(["goal"]), plain.encode_passages([f"{passage}goal"]), atol=1e-5)
    ranker.save(tmp_path / "kept")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "kept" / "model"), device="cpu")
    assert (theirs.prompts.get("query") or "", theirs.prompts.get("document") or "") == (query, passage)


def test_log_p_is_the_softmax_over_the_batch(start):
    found, cosines = in_batch(start, REAL, [0, 4, 7, 9])
    scores = cosines / 0.5
    expected = np.diag(scores) - np.log(np.exp(scores).sum(axis=1))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_passage_is_no_negative_of_its_own_question(start):
    rows = Corpus.from_rows(
        [
            {"text": "goal match", "target": "team league"},
            {"text": "coach cup", "target": "Team, league!"},  # the same passage, written otherwise
            {"text": "bank shares", "target": "market price"},
            {"text": "bank shares", "target": "profit trade"},  # another answer to the same question
        ],
        task="retrieval",
    )
    found, cosines = in_batch(start, rows, [0, 1, 2, 3])
    e = np.exp(cosines / 0.5)
    expected = [
        math.log(e[0, 0] / (e[0, 0] + e[0, 2] + e[0, 3])),
        math.log(e[1, 0] / (e[1, 0] + e[1, 2] + e[1, 3])),
        math.log(e[2, 2] / (e[2, 2] + e[2, 0])),
        math.log(e[3, 3] / (e[3, 3] + e[3, 0])),
    ]
    assert found == pytest.approx(expected, abs=1e-4)
    alone, _ = in_batch(start, rows, [0, 1])
    assert alone == pytest.approx([0, 0], abs=1e-6)


def test_settings_are_obeyed_and_filled(start):
    base = train(start)
    assert base.settings.temperature == 0.05
    changed = {"temperature": 0.5, "batch_size": 4, "learning_rate": 2e-3, "max_length": 5, "steps": 3}
    for name, value in changed.items():
        assert not np.array_equal(weights_of(train(start, **{name: value})), weights_of(base)), name
    own = train(start, max_length=None, steps=1)
    assert own.settings.max_length == 64 == own.max_length  # what the model reads


@pytest.mark.parametrize("changes", [{"lora_rank": 2}, {"gradient_checkpointing": True}, {"precision": "bfloat16"}])
def test_ways_to_train_a_large_model_give_a_plain_one(start, tmp_path, changes):
    if "lora_rank" in changes:
        pytest.importorskip("peft")
    ranker = train(start, **changes)
    assert not np.array_equal(ranker.encode_queries(["goal"]), train(start).encode_queries(["goal"])) or (
        "gradient_checkpointing" in changes
    )
    ranker.save(tmp_path / "r")
    again = load_predictor(tmp_path / "r").encode_queries(HELD_OUT.texts)
    assert again == pytest.approx(ranker.encode_queries(HELD_OUT.texts), abs=1e-6)


def test_validation_rows_stop_a_training_that_does_not_help(start):
    from cuvee.train.losses import TrainingRows, build_loss
    from cuvee.train.retriever import train_retriever

    settings = dataclasses.replace(start, steps=40, patience=1, evaluate_every=2, learning_rate=0.3)
    marks = np.zeros(len(REAL), dtype=bool)
    rows = TrainingRows(corpus=REAL, synthetic=marks, encode=lambda texts: texts, seed=0)
    steps = []
    loss = build_loss(settings).prepare(rows)
    told = {"validation": HELD_OUT, "progress": lambda done, *_: steps.append(done)}
    train_retriever(Training(corpus=REAL, loss=loss, settings=settings, **told))
    assert steps[-1] < 40


def test_round_trips_that_a_checker_does_not_make_are_filtered(start):
    from cuvee.train.model import TunedChecker

    rng = np.random.default_rng(7)
    wrong = Corpus.from_rows(
        [{"text": t, "target": p} for t, p in zip(POOL.texts, np.roll(POOL.targets, 4).tolist(), strict=True)],
        origin="synthetic",
        task="retrieval",
    ).take(rng.permutation(len(POOL))[:6])
    settings = dataclasses.replace(start, loss="agreement_filter", steps=120)
    pool = POOL.joined(wrong)
    scored = TunedChecker(settings)(REAL, pool, weights=np.ones(len(REAL)), passes=None, seed=0)
    assert scored.agrees[: len(POOL)].sum() >= 2 > scored.agrees[len(POOL) :].sum()
    assert scored.log_p[: len(POOL)].mean() > scored.log_p[len(POOL) :].mean() + 0.5
    assert train(settings, REAL.joined(pool), steps=4).settings.loss == "agreement_filter"


@pytest.mark.parametrize("name", ["source_weight", "curriculum"])
def test_other_losses_train(start, name):
    ranker = train(start, loss=name)
    assert not np.array_equal(weights_of(ranker), weights_of(train(start)))
    assert (ranker.settings.source_weight is not None) == (name == "source_weight")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "imp"}, "a retriever has none"),
        ({"head_learning_rate": 0.1}, "no head_learning_rate"),
        ({"packing": True}, "no packing"),
        ({"accumulate": 2}, "no accumulate"),
        ({"batch_size": 1}, "negatives are the other rows"),
        ({"max_length": 100}, "reads at most 64 tokens"),
        ({"device": "abacus"}, "device 'abacus' is not here"),
    ],
)
def test_settings_of_no_use_are_refused(start, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(start, **changes)


def test_rows_and_files_that_do_not_work_are_refused(start, tmp_path):
    same = Corpus.from_rows([{"text": t, "target": "Bread."} for t in ("goal", "chip")], task="retrieval")
    with pytest.raises(TrainingError, match="the same passage"):
        train(start, same)
    with pytest.raises(InputError, match="cannot be loaded"):
        train(start, model=str(tmp_path))
    train(start, steps=1).save(tmp_path / "r")
    (tmp_path / "r" / "model" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_predictor(tmp_path / "r")
    (tmp_path / "r" / "model").rename(tmp_path / "r" / "elsewhere")
    with pytest.raises(InputError, match="no such folder; train again"):
        load_predictor(tmp_path / "r")
