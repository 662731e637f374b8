"""A language model that transformers runs in this process: for models without a server, on any device."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cuvee.errors import ConfigError, GenerationError, MissingDependency
from cuvee.fingerprint import derive_rng
from cuvee.generate import calls
from cuvee.generate.ledger import Ledger
from cuvee.model_files import PREFIX, find_model, hash_path

if TYPE_CHECKING:
    from cuvee.language_models import LanguageModel


@dataclass(eq=False)
class TransformersLLM:
    """A causal language model of transformers, in memory while the ``with`` block lasts.

    Pass its ``endpoint`` and ``open_client`` to what asks. ``model.generate`` answers requests of equal sampling
    parameters in batches. Each request is drawn from a random stream of its own seed, so an answer does not depend on
    what else is asked, whether a run was interrupted or not. What shares a batch still changes the rounding of the
    arithmetic: with float32 that is rarely seen, with bfloat16 a word may differ between runs. What makes a run
    repeatable is the ledger. A JSON schema is not enforced: only the prompt asks for it.

    Args:
        model: a folder, a .gguf file, ``smollm2``, or NAME or NAME@REVISION on the Hugging Face hub; ``hf:`` may stand
            before it.
        device: ``auto`` (cuda, else mps, else cpu), ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        dtype: ``auto`` (bfloat16 on a GPU that computes in it, else float32), ``float32``, ``bfloat16``, ``float16``.
        batch: requests answered at once, at most; halved when memory runs out.
        context: tokens of prompt and answer together, at most; an answer that would pass it ends there.
        api: the form of the prompts: ``completions`` for base models, ``chat`` for those with a chat template.

    Raises:
        MissingDependency: torch or transformers is not installed.
        InputError: there is no such model.
    """

    model: str | Path
    _: KW_ONLY
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 16
    context: int = 2048
    api: calls.Api = "completions"
    _endpoint: calls.Endpoint | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
            raise MissingDependency(f"generator 'hf:' needs {' and '.join(missing)}: pip install 'cuvee[train]'")
        self._files = find_model(self.model)

    @property
    def endpoint(self) -> calls.Endpoint:
        """What the ledger knows it by: the hash of its files or its commit on the hub, and the number format.

        Raises:
            GenerationError: the model is not loaded.
        """
        if self._endpoint is None:
            raise GenerationError("the model is not loaded; use it as: with TransformersLLM(MODEL) as llm")
        return self._endpoint

    def __enter__(self) -> TransformersLLM:
        from cuvee.language_models import load_causal_model

        files = self._files
        loaded = load_causal_model(files, device=self.device, dtype=self.dtype)
        if self.api == "chat" and not loaded.tokenizer.chat_template:
            raise ConfigError(f"{files.shown}: has no chat template; set api: completions, or choose an instruct model")
        known_by = hash_path(files.path) if loaded.commit is None else f"{files.place}@{loaded.commit}"
        self._loaded = loaded
        url = f"{PREFIX}{known_by}:{loaded.dtype}"
        self._endpoint = calls.Endpoint(base_url=url, model=files.name, api=self.api, concurrency=self.batch)
        return self

    def __exit__(self, *_: object) -> None:
        self._endpoint = None
        self._loaded.unload()

    @contextmanager
    def open_client(self, endpoint: calls.Endpoint, ledger: Ledger) -> Iterator[BatchClient]:
        """What asks the model: ``endpoint`` is its own, ``ledger`` has what was asked before, and takes new answers."""
        if self.endpoint.identity != endpoint.identity:
            raise ValueError(f"endpoint {endpoint.identity!r}; must be this model's own, {self.endpoint.identity!r}")
        yield BatchClient(self._loaded, endpoint, ledger, self.batch, self.context)


@dataclass(eq=False)
class BatchClient:
    """Answers requests from the ledger, else in batches with a model in this process.

    Requests of equal sampling parameters share a batch, the longest prompts first: little is padded, and memory runs
    short at once or never. A batch is committed to the ledger before the next one begins. When memory runs out the
    batch is halved, for good.

    Args:
        loaded: the model.
        endpoint: what the ledger knows it by.
        ledger: what was asked before, and where new answers go.
        batch: requests answered at once, at most.
        context: tokens of prompt and answer together, at most.
    """

    loaded: LanguageModel
    endpoint: calls.Endpoint
    ledger: Ledger
    batch: int
    context: int

    def answer_requests(
        self, requests: Sequence[calls.Request], on_answer: calls.OnAnswer | None = None, more: calls.More | None = None
    ) -> list[calls.Outcome]:
        """The answer to each request, or its failure, in their order; equal requests are answered once.

        Args:
            requests: in any order.
            on_answer: called with each answer as it is committed, or is found in the ledger.
            more: what to ask while requests wait for their next try; here none does, so it is not called.

        Raises:
            ConfigError: a chat request, and the model has no chat template or the template refuses it.
            GenerationError: out of memory with a single request, or the model's scores are not finite.
            RunFolderError: the ledger cannot be written.
        """
        del more
        tell = on_answer or (lambda _request, _answer: None)
        limit = min(self.context, self.loaded.limit)
        outcomes: dict[calls.Request, calls.Outcome] = {}
        waiting: dict[calls.Sampling, list[tuple[calls.Request, tuple[int, ...]]]] = {}
        for request in dict.fromkeys(requests):
            key = calls.request_key(self.endpoint, request)
            if (known := self.ledger.lookup(key)) is not None:
                outcomes[request] = known
                tell(request, known)
                continue
            length = len(prompt := self._tokenize(request))
            if 0 < length < limit:
                most = min(request.sampling.max_tokens, limit - length)
                waiting.setdefault(replace(request.sampling, max_tokens=most), []).append((request, prompt))
            else:
                message = f"the prompt has {length} tokens, valid are 1 to {limit - 1}; change it or raise context"
                failure = calls.Failure(reason="prompt does not fit", message=message)
                self.ledger.record_failure(key, calls.request_json(self.endpoint, request), failure)
                outcomes[request] = failure
        for sampling, asked in waiting.items():
            asked.sort(key=lambda pair: -len(pair[1]))
            while asked:
                answers = self._write(asked[: self.batch], sampling)
                del asked[: len(answers)]
                outcomes |= answers
                for request, answer in answers.items():
                    tell(request, answer)
        return [outcomes[request] for request in requests]

    def _tokenize(self, request: calls.Request) -> tuple[int, ...]:
        if request.schema is not None:
            self.ledger.met.notes["structured output: the prompt alone asks for JSON"] = None
        if request.prompt is None:
            return self.loaded.chat_tokens(request.messages, "set api: completions, or choose an instruct model")
        return tuple(self.loaded.tokenizer(request.prompt)["input_ids"])

    def _write(
        self, asked: Sequence[tuple[calls.Request, tuple[int, ...]]], sampling: calls.Sampling
    ) -> dict[calls.Request, calls.Answer]:
        """Answer and journal the first of these requests: as many as there is memory for."""
        streams = [derive_rng(request.seed, "tokens") for request, _ in asked]
        written = self.loaded.write([prompt for _, prompt in asked], streams, sampling)
        if len(written) < len(asked):
            self.batch = len(written)
            self.ledger.met.notes[f"out of memory on {self.loaded.model.device}: batch lowered to {self.batch}"] = None
        answers = {}
        for (request, prompt), w in zip(asked, written, strict=False):
            answers[request] = calls.Answer(
                text=w.text, finish_reason=w.reason, prompt_tokens=len(prompt), completion_tokens=w.tokens
            )
            key, text = calls.request_key(self.endpoint, request), calls.request_json(self.endpoint, request)
            self.ledger.record(key, text, answers[request])
        self.ledger.flush()
        return answers
