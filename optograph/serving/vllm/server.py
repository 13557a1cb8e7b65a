"""A vLLM server of our own: started on this machine, given trained adapters, checked against their training, stopped.

VLLMServer(model) = find an interpreter with vLLM → start it under a guard, on a free port, with a random key → wait for
its health → adapters come and go under names made from their hashes → stop; nothing is left behind, whatever kills us.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from optograph.errors import ServingError, UserError
from optograph.secrets import register_secret
from optograph.serving.base import BaseLM
from optograph.serving.vllm.adapters import Probe, adapter_hash, check_servable, served_name
from optograph.serving.vllm.checking import check_served
from optograph.serving.vllm.command import Device, ServerOptions, checked_extra, command_for, server_environment
from optograph.serving.vllm.control import Control
from optograph.serving.vllm.interpreter import Installation, find_vllm
from optograph.serving.vllm.metrics import ServerMetrics
from optograph.serving.vllm.process import GuardedProcess
from optograph.serving.vllm.served import ServedLM
from optograph.serving.vllm.weights import model_weights

Progress = Callable[[float, str], None]

_PORTS_TRIED = 4
_LOOK_EVERY_S = 0.2
_PORT_TAKEN = ("address already in use", "errno 98", "errno 48")
_CONCURRENCY = 32


class VLLMServer:
    """A vLLM server that lives as long as this object: use it in a ``with`` block, or `start` and `close` it.

    It listens on loopback alone and wants a random key for all under ``/v1``. The process, and all that it starts, ends
    with `close`, with this object, and with this process, also where that is killed by SIGKILL.

    Args:
        model: A model folder in Hugging Face's form, or a name on the hub.
        name: Name under which the base model is served.
        python: Interpreter that has vLLM; by default it is looked for, see `find_vllm`.
        device: ``"auto"`` is whatever that vLLM is built for.
        dtype: ``"auto"``: float32 on a CPU (the same request then gets the same tokens whatever else is served),
            bfloat16 on a GPU.
        max_model_len: Longest prompt and answer together, in tokens.
        max_lora_rank: Largest rank of an adapter, up to 512.
        max_loras: How many adapters may be asked at the same moment; more may be loaded.
        block_size: Tokens of a KV block; a prefix is shared in whole blocks. None: 32 on a CPU, vLLM's choice on a GPU.
        max_num_seqs: Most requests worked on at once; None: 32 on a CPU, vLLM's choice on a GPU.
        kv_cache_gb: GiB for the KV cache; None: 1 on a CPU, vLLM's share of the memory on a GPU.
        threads: Threads that compute, on a CPU; None: one for each processor.
        seed: Seed of requests that carry none.
        weights: What `ModelIdentity.weights` says of the base model; by default a hash of the folder's files.
        ready_timeout_s: How long the start may take, in seconds.
        log: File to which the server's output is appended; by default one that goes with this object.
        extra: Further arguments of ``vllm serve``.
        progress: Told while the server starts: seconds so far, and the last line of its log.

    Attributes:
        installation: The vLLM that runs; None before the first start.

    Raises:
        UserError: For a bad argument or an interpreter without vLLM (when it starts).
    """

    def __init__(
        self,
        model: str | Path,
        *,
        name: str = "base",
        python: str | Path | None = None,
        device: Device = "auto",
        dtype: str = "auto",
        max_model_len: int = 2048,
        max_lora_rank: int = 16,
        max_loras: int = 2,
        block_size: int | None = None,
        max_num_seqs: int | None = None,
        kv_cache_gb: float | None = None,
        threads: int | None = None,
        seed: int = 0,
        weights: str | None = None,
        ready_timeout_s: float = 300.0,
        log: Path | None = None,
        extra: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        folder = Path(model).expanduser()
        if isinstance(model, Path) and not folder.is_dir():
            raise UserError(f"there is no model folder {str(model)!r}")
        if not ready_timeout_s > 0:
            raise UserError(f"ready_timeout_s must be above 0, got {ready_timeout_s!r}")
        self.options = ServerOptions(
            model=str(folder.resolve()) if folder.is_dir() else str(model),
            name=name,
            device=device,
            dtype=dtype,
            max_model_len=max_model_len,
            max_lora_rank=max_lora_rank,
            max_loras=max_loras,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            kv_cache_gb=kv_cache_gb,
            threads=threads,
            seed=seed,
            extra=checked_extra(extra),
        )
        self.installation: Installation | None = None
        self._python = python
        self._weights = weights
        self._ready_timeout_s = ready_timeout_s
        self._log = log
        self._progress = progress
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: GuardedProcess | None = None
        self._control: Control | None = None
        self._key = ""
        self._folders: dict[str, Path] = {}

    def __repr__(self) -> str:
        where = "stopped" if self._control is None else self._control.root
        return f"VLLMServer({self.options.model!r}, {where})"

    def __enter__(self) -> VLLMServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Base URL for clients, ending in ``/v1``."""
        return f"{self._running().root}/v1"

    @property
    def api_key(self) -> str:
        """The key that requests under ``/v1`` need; a secret, blanked in all that this package writes."""
        self._running()
        return self._key

    @property
    def pid(self) -> int:
        """Process id of the server."""
        self._running()
        assert self._process is not None  # noqa: S101 - `_running` raised otherwise
        return self._process.pid

    def start(self) -> VLLMServer:
        """Start the server and wait until it is well; does nothing where it runs already.

        Raises:
            UserError: No vLLM is there, or it is built for another device.
            ServingError: Of kind ``"start"``: it ended or took too long; the message has the end of its log.
        """
        if self._control is not None:
            self.check_alive()
            return self
        self.installation = find_vllm(self._python)
        if self._weights is None and Path(self.options.model).is_dir():
            self._weights = model_weights(self.options.model)
        self._key = secrets.token_urlsafe(32)
        register_secret(self._key)
        try:
            for attempt in range(_PORTS_TRIED):
                if self._start_at(_free_port(), last=attempt == _PORTS_TRIED - 1):
                    break
        except BaseException:
            self.close()
            raise
        if self._weights is None:
            self._weights = model_weights(self.options.model)  # the server has fetched it
        return self

    def close(self) -> None:
        """Stop the server and wait until all its processes are gone; may be called again."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
        process, self._process = self._process, None
        if process is not None:
            process.stop()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.cleanup()
        self._folders.clear()

    def check_alive(self) -> None:
        """Check that the server's process runs.

        Raises:
            UserError: It was not started, or closed.
            ServingError: Of kind ``"stopped"``: it has ended; the message has the end of its log.
        """
        process = self._process
        if process is None:
            raise UserError(f"the server of {self.options.model!r} is not running; start it, or use it in a with block")
        code = process.poll()
        if code is not None:
            raise ServingError(
                f"the vLLM server of {self.options.model!r} has ended (exit code {code}); its log ends:\n"
                f"{process.tail()}",
                kind="stopped",
            )

    def load_adapter(self, folder: str | Path) -> str:
        """Load an adapter under the name that its hash gives; one that is loaded already stays.

        Args:
            folder: As PEFT saves it. It must stay as it is: the server reads it again where it had to make room.

        Returns:
            The served name, ``policy@<hash>``.

        Raises:
            UserError: It is no adapter, or one that the server cannot take.
            ServingError: The server refused it.
        """
        control = self._running()
        path = Path(folder).expanduser().resolve()
        check_servable(path, max_rank=self.options.lora_rank)
        name = served_name(adapter_hash(path))
        if name not in self.adapters():
            control.load(name, path)
        self._folders.setdefault(name, path)
        return name

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter.

        Raises:
            UserError: None is loaded under that name.
        """
        control = self._running()
        self._known(name)
        control.unload(name)
        self._folders.pop(name, None)

    def adapters(self) -> list[str]:
        """List the names of the loaded adapters, oldest first."""
        return [one.name for one in self._running().models() if one.parent is not None]

    def metrics(self) -> ServerMetrics:
        """Read queue, cache use and token counts."""
        return self._running().metrics()

    def lm(self, adapter: str | None = None, **options: Any) -> BaseLM:
        """Return the base model, or an adapter, as a model of this package.

        Its identity holds the content of base model and adapter. For training, wrap it in
        `optograph.optimizers.policy.with_token_ids`, so that the journal gets token ids and log-probabilities.

        Args:
            adapter: A name that `load_adapter` gave; None: the base model.
            **options: Keyword arguments of `OpenAILM`.

        Raises:
            UserError: No such adapter is loaded, or an option is wrong.
        """
        self._running()
        weights = self._weights
        if adapter is not None:
            self._known(adapter)
            folder = self._folders.get(adapter)
            content = adapter if folder is None else adapter_hash(folder)
            weights = None if weights is None else f"{weights}+{content}"
        defaults: dict[str, Any] = {"max_concurrency": self.options.max_num_seqs or _CONCURRENCY}
        return ServedLM(
            adapter or self.options.name,
            weights=weights,
            base_url=self.url,
            api_key=self._key,
            ended=self.check_alive,
            **(defaults | options),
        )

    def check_adapter(self, name: str, probe: Probe, *, tolerance: float) -> float:
        """Assert that what is served under a name is the adapter that was trained.

        It must be listed as an adapter of the base model, its folder must still have the hash that its name says, and
        the server must give the tokens of the probe's answer the log-probabilities that the trainer gave them, and
        not those of the probe's ``others`` (as far as it tells them apart, see `Probe.not_told_apart`).

        Args:
            name: A name that `load_adapter` gave.
            probe: Tokens with the trainer's log-probabilities.
            tolerance: Largest difference in nats, above 0. Where trainer and server both compute in float32, 1e-3
                leaves room; in bfloat16 they differ by up to a few tenths, as much as a small adapter's effect.

        Returns:
            The largest absolute difference.

        Raises:
            ServedAdapterError: Another adapter, or none, is served under that name.
            UserError: A tolerance that is not above 0.
        """
        return check_served(self._running(), self.options.name, name, probe, tolerance)

    def _running(self) -> Control:
        self.check_alive()
        if self._control is None:
            raise UserError(f"the server of {self.options.model!r} is still starting")
        return self._control

    def _known(self, name: str) -> None:
        names = self.adapters()
        if name not in names:
            raise UserError(f"no adapter {name!r} is loaded; there are {', '.join(map(repr, names)) or 'none'}")

    def _start_at(self, port: int, *, last: bool) -> bool:
        """Start at a port and wait; return False where somebody else took the port meanwhile."""
        assert self.installation is not None  # noqa: S101 - set by `start`
        environment = server_environment(self.options, self.installation, self._key)
        try:
            self._process = GuardedProcess(
                command_for(self.options, self.installation, port), environment, self._log_file()
            )
        except OSError as error:
            raise ServingError(f"vLLM cannot be started: {error}", kind="start") from None
        control = Control(f"http://127.0.0.1:{port}", self._key)
        try:
            if not self._wait(control, self._process, last=last):
                self._process.stop()
                return False
        except BaseException:
            control.close()
            raise
        self._control = control
        return True

    def _wait(self, control: Control, process: GuardedProcess, *, last: bool) -> bool:
        started = time.monotonic()
        while True:
            passed = time.monotonic() - started
            code = process.poll()
            if code is not None:
                said = process.tail(60)
                if not last and any(mark in said.lower() for mark in _PORT_TAKEN):
                    control.close()
                    return False
                raise ServingError(
                    f"vLLM ended while it started (exit code {code}); its log ends:\n{said}", kind="start"
                )
            if self._progress is not None:
                self._progress(passed, process.tail(1))
            if self._answers(control):
                return True
            if passed > self._ready_timeout_s:
                raise ServingError(
                    f"vLLM was not ready within {self._ready_timeout_s:g} s (ready_timeout_s); its log ends:\n"
                    f"{process.tail()}",
                    kind="start",
                )
            time.sleep(_LOOK_EVERY_S)

    def _answers(self, control: Control) -> bool:
        """Tell whether the server is well and takes our key; another one that sits at the port does not."""
        try:
            return control.healthy() and self.options.name in [one.name for one in control.models()]
        except ServingError:
            return False

    def _log_file(self) -> Path:
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            return self._log
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="optograph-vllm-")
        return Path(self._scratch.name) / "server.log"


def _free_port() -> int:
    """Return a port on loopback that nobody listens at just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
