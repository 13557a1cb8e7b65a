"""The llama.cpp engine in this process: one for each model file, shared by all who use that file."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import secrets
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from optograph.errors import ServingError, UserError
from optograph.serving.tokenizing import EngineTokenizer

Route = Literal["chat", "completions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a model file is run.

    Attributes:
        path: The GGUF file.
        n_parallel: Requests that are worked on at once, at least 1.
        n_ctx: Tokens of context for each of them.
        threads: Threads that compute, at least 1.
    """

    path: Path
    n_parallel: int
    n_ctx: int
    threads: int


class Engine:
    """A running llama.cpp server without its network side: dictionaries in, dictionaries out.

    Where a request has ``return_tokens``, the ids of its prompt's tokens are in the answer as ``prompt_token_ids``.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._lock = threading.Lock()
        self._server: Any = None
        self._tokenizer: EngineTokenizer | None = None
        self._pool = ThreadPoolExecutor(options.n_parallel, thread_name_prefix="optograph-llama")
        self._closed = False

    async def call(self, route: Route, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the engine; loads the model on the first call. The work is done in a thread of its own.

        A call that is cancelled goes on in its thread until its tokens are written: llama.cpp takes no cancellation
        this way.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, route, body)

    def close(self) -> None:
        """Wait for the calls under way and free the model."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._server = None

    def _call(self, route: Route, body: dict[str, Any]) -> dict[str, Any]:
        server = self._loaded()
        handle = server.handle_chat_completions if route == "chat" else server.handle_completions
        try:
            answer = handle(body)
        except (ValueError, RuntimeError) as error:
            raise ServingError(f"llama.cpp refused the request: {error}", kind="bad_request") from None
        if not isinstance(answer, dict):
            raise ServingError(f"llama.cpp gave no dictionary: {answer!r}", kind="bad_response", retryable=True)
        if body.get("return_tokens") and self._tokenizer is not None and "error" not in answer:
            answer["prompt_token_ids"] = self._tokenizer.prompt_ids(body, answer.get("__verbose", {}))
        return answer

    def _loaded(self) -> Any:
        with self._lock:
            if self._server is None:
                if self._closed:
                    raise UserError(f"the engine of {str(self.options.path)!r} is closed; make a new model")
                self._server, key = _start(self.options)
                self._tokenizer = EngineTokenizer(self._server.listening_address, key)
            return self._server


class _Engines:
    """The engines of this process, held weakly: an engine lives as long as a model uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: weakref.WeakValueDictionary[Path, Engine] = weakref.WeakValueDictionary()
        atexit.register(self.close_all)

    def get(self, options: EngineOptions) -> Engine:
        with self._lock:
            engine = self._by_path.get(options.path)
            if engine is None or engine._closed:
                engine = self._by_path[options.path] = Engine(options)
                return engine
            if engine.options != options:
                raise UserError(
                    f"{str(options.path)!r} already runs in this process with other options ({engine.options!r}); "
                    "use the same ones, or close the other model first"
                )
            return engine

    def close_all(self) -> None:
        for engine in list(self._by_path.values()):
            engine.close()


@functools.lru_cache(maxsize=1)
def _engines() -> _Engines:
    return _Engines()


def engine_for(options: EngineOptions) -> Engine:
    """Give the engine of a model file, the one that is there or a new one.

    Raises:
        UserError: When xllamacpp is missing, or the file already runs with other options.
    """
    _import_xllamacpp()
    return _engines().get(replace(options, path=options.path.resolve()))


@functools.lru_cache(maxsize=1)
def _import_xllamacpp() -> ModuleType:
    # llama.cpp's threads spin while they wait for each other. On a machine where anything else runs, that
    # makes the engine ten times slower; the OpenMP library reads this once, when it is loaded.
    before = os.environ.get("OMP_WAIT_POLICY")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import xllamacpp
    except ImportError:
        raise UserError(
            "the embedded engine is not installed; run `pip install 'optograph[local]'` (or `pip install xllamacpp`)"
        ) from None
    finally:
        if before is None:
            del os.environ["OMP_WAIT_POLICY"]
    module: ModuleType = xllamacpp
    return module


def _start(options: EngineOptions) -> tuple[Any, str]:
    """Load the model; returns the server and its API key."""
    xllamacpp = _import_xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(options.path)
    params.n_parallel = options.n_parallel
    params.n_ctx = options.n_ctx * options.n_parallel
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.cache_ram_mib = 256
    params.verbosity = 0  # errors reach us as exceptions
    params.warmup = False
    # The server also listens on a loopback port, which nobody but us shall use.
    key = secrets.token_hex(16)
    params.api_keys = [key]
    params.cors_origins = ""
    params.ui = False
    try:
        return xllamacpp.Server(params), key
    except (RuntimeError, ValueError) as error:
        raise ServingError(f"llama.cpp cannot load {str(options.path)!r}: {error}", kind="load") from None
