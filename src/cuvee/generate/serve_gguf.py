"""The child process of the embedded LLM: llama.cpp on a free loopback port, until standard input closes.

Run as a script, so that it imports llama.cpp and nothing of Cuvée. It is a process of its own because stopping
llama.cpp's server inside the parent can wait forever for open requests, and because a parent that
is killed closes the pipe and so takes its server with it.
"""

from __future__ import annotations

import os
import sys
import threading

URL_MARK = "llama.cpp serves "


def serve(model: str, slots: int, context: int, threads: int) -> None:
    """Serve ``model`` with ``slots`` sequences of ``context`` tokens; write the URL, then wait for the end."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    params.ui = False
    params.cache_ram_mib = 0
    # temperature alone decides how words are drawn, unless a request says otherwise
    params.sampling.top_k = 0
    params.sampling.top_p = 1.0
    params.sampling.min_p = 0.0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{URL_MARK}{server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # an orderly stop would wait for requests under way


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(sys.argv[1], *(int(a) for a in sys.argv[2:5]))
