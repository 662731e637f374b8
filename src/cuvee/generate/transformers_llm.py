"""A language model that transformers runs in this process: for models without a server, on any device."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cuvee.errors import ConfigError, GenerationError, InputError, MissingDependency
from cuvee.generate.batches import BatchClient
from cuvee.generate.calls import Api, Endpoint
from cuvee.generate.ledger import Ledger
from cuvee.generate.model_files import PREFIX, find_model, hash_folder, hash_model

if TYPE_CHECKING:
    from cuvee.generate.loading import LoadedModel


class TransformersLLM:
    """A causal language model of transformers, in memory while the ``with`` block lasts.

    Pass its ``endpoint`` and ``open_client`` to what asks. Each request is drawn from a random stream of its own
    seed, so an answer does not depend on what else is asked. What shares a batch still rounds the arithmetic another
    way: with float32 that is rarely seen, with bfloat16 a word may differ between runs. What makes a run
    repeatable is the ledger. A JSON schema is not held to: the prompt alone asks for it.

    Args:
        model: a folder, a .gguf file, or NAME or NAME@REVISION on the Hugging Face hub; ``hf:`` may stand before it.
        device: ``auto`` (cuda, else mps, else cpu), ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        dtype: ``auto`` (bfloat16 on a GPU that computes in it, else float32), ``float32``, ``bfloat16``, ``float16``.
        batch: requests answered at once, at most; halved when memory runs out.
        context: tokens of prompt and answer together, at most; an answer that would pass it ends there.
        api: the form of the prompts: ``completions`` for base models, ``chat`` for those with a chat template.
        adapter: folder of a PEFT adapter that is merged into the model.

    Raises:
        MissingDependency: torch or transformers is not installed.
        InputError: there is no such model or adapter.
        ValueError: batch or context below 1.
    """

    def __init__(
        self, model: str | Path, *, device: str = "auto", dtype: str = "auto", batch: int = 16, context: int = 2048,
        api: Api = "completions", adapter: str | Path | None = None,
    ) -> None:  # fmt: skip
        missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependency(f"generator 'hf:' needs {' and '.join(missing)}: pip install 'cuvee[train]'")
        for name, value in (("batch", batch), ("context", context)):
            if value < 1:
                raise ValueError(f"{name} {value!r}; must be 1 or more")
        self._files = find_model(model)
        self._adapter = None if adapter is None else Path(adapter).expanduser()
        if self._adapter is not None and not (self._adapter / "adapter_config.json").is_file():
            raise InputError(f"{self._adapter}: holds no adapter_config.json; give the folder of a PEFT adapter")
        self._device = device
        self._dtype = dtype
        self._batch = batch
        self._context = context
        self._api = api
        self._loaded: LoadedModel | None = None
        self._endpoint: Endpoint | None = None

    @property
    def name(self) -> str:
        """Of the folder, of the file without its suffix, or on the hub."""
        return self._files.name

    @property
    def endpoint(self) -> Endpoint:
        """What the ledger knows it by: the hash of its files or its commit on the hub, and the number format.

        Raises:
            GenerationError: it is not loaded.
        """
        if self._endpoint is None:
            raise GenerationError("the model is not loaded; use it as: with TransformersLLM(MODEL) as llm")
        return self._endpoint

    def __enter__(self) -> TransformersLLM:
        from cuvee.generate.loading import load_model

        loaded = load_model(self._files, device=self._device, dtype=self._dtype, adapter=self._adapter)
        if self._api == "chat" and not loaded.decoder.can_chat:
            raise ConfigError(
                f"{self._files.shown}: has no chat template; set api: completions, or choose an instruct model"
            )
        identity = self._identify(loaded)
        self._endpoint = Endpoint(
            base_url=identity, model=self.name, api=self._api, identity=identity, concurrency=self._batch,
            check_model=False,
        )  # fmt: skip
        self._loaded = loaded
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loaded, self._loaded, self._endpoint = self._loaded, None, None
        if loaded is not None:
            loaded.decoder.unload()

    def open_client(self, endpoint: Endpoint, ledger: Ledger) -> BatchClient:
        """What asks the model.

        Args:
            endpoint: this model's own.
            ledger: what was asked before, and where new answers go.

        Raises:
            GenerationError: the model is not loaded.
            ValueError: the endpoint is another one.
        """
        own = self.endpoint
        if endpoint.identity != own.identity or self._loaded is None:
            raise ValueError(f"endpoint {endpoint.identity!r}; must be this model's own, {own.identity!r}")
        return BatchClient(self._loaded.decoder, endpoint, ledger, batch=self._batch, context=self._context)

    def _identify(self, loaded: LoadedModel) -> str:
        files = self._files
        parts = [hash_model(files) if loaded.commit is None else f"{files.place}@{loaded.commit}"]
        parts.append(loaded.decoder.dtype_name)
        if self._adapter is not None:
            parts.append(hash_folder(self._adapter))
        return PREFIX + ":".join(parts)
