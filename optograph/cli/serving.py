"""``optograph serve``: a vLLM server in the foreground, with its address, its key in a file, and what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from optograph.cli.output import AsJson, console, print_json, say
from optograph.errors import ServingError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from optograph.serving.vllm import ServerMetrics, VLLMServer

_PLAIN_EVERY_S = 10.0


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model folder in Hugging Face's form, local/smollm2-135m, or a name on the hub.",
            show_default=False,
        ),
    ],
    adapter: Annotated[
        list[Path] | None,
        typer.Option("--adapter", metavar="FOLDER", help="A LoRA adapter to serve beside it; may be repeated."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name under which the base model is served.")] = "base",
    python: Annotated[
        Path | None, typer.Option(help="Interpreter that has vLLM.", envvar="OPTOGRAPH_VLLM_PYTHON")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="What computes.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Number format; auto is float32 on a CPU, bfloat16 on a GPU.")] = "auto",
    max_model_len: Annotated[int, typer.Option(min=1, help="Longest prompt and answer together, in tokens.")] = 2048,
    max_lora_rank: Annotated[int, typer.Option(min=1, max=512, help="Largest rank of an adapter.")] = 16,
    key_file: Annotated[
        Path | None, typer.Option(help="Where the key is written, for you alone; it is removed in the end.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File to which vLLM's own output is appended.")] = None,
    every: Annotated[float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="Time between refreshes.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Serve a model with vLLM on this machine until Ctrl-C. Nobody from outside is served, and nobody without the key.

    Example: [bold]optograph serve local/smollm2-135m --adapter runs/mine/adapters/3[/bold]
    """
    from optograph.serving.vllm import VLLMServer

    shown = console(errors=as_json)
    with _ended_by_signals(), contextlib.ExitStack() as stack:
        with _starting(shown) as progress:
            server = VLLMServer(
                _found(model),
                name=name,
                python=python,
                device=device,
                dtype=dtype,
                max_model_len=max_model_len,
                max_lora_rank=max_lora_rank,
                log=log,
                progress=progress,
            )
            stack.enter_context(server)
        adapters = [server.load_adapter(one) for one in adapter or ()]
        path = stack.enter_context(_key_in_file(key_file, server.api_key))
        try:
            _announce(shown, server, adapters, path, as_json=as_json)
            _watch(shown, server, every)
        except KeyboardInterrupt:
            say("stopping")
        except ServingError:
            for _ in range(20):  # a server that ends closes its connections a moment before its process is gone
                server.check_alive()
                time.sleep(0.1)
            raise


def _found(model: str) -> str | Path:
    if not model.startswith("local/"):
        return model
    from optograph.optimizers.policy.base import base_model

    return base_model(model).folder


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the block on Ctrl-C and on SIGTERM, also where whoever started the process had it ignore SIGINT."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Starting:
    """Shows the seconds and the last line of the log while the server starts."""

    def __init__(self, shown: Console) -> None:
        from rich.status import Status

        self._status = Status("starting vLLM", console=shown) if shown.is_terminal else None

    def __call__(self, seconds: float, line: str) -> None:
        if self._status is not None:
            from rich.markup import escape

            self._status.update(f"starting vLLM, {seconds:.0f} s [dim]{escape(line[:100])}[/dim]")

    def __enter__(self) -> _Starting:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()


def _starting(shown: Console) -> _Starting:
    if not shown.is_terminal:
        say("starting vLLM")
    return _Starting(shown)


@contextlib.contextmanager
def _key_in_file(path: Path | None, key: str) -> Iterator[Path]:
    """Keep the key in a file that its owner alone can read, until the end of the block."""
    from optograph.serving.cache import cache_dir

    if path is None:
        path = cache_dir() / "serve" / f"{os.getpid()}.key"
        path.unlink(missing_ok=True)  # of a process that was killed, and had the same number
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UserError(f"--key-file: {str(path)!r} is there already; remove it, or name a new file") from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        made = os.fstat(handle)
        file.write(key + "\n")
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), made):
                path.unlink()


def _announce(shown: Console, server: VLLMServer, adapters: list[str], key_file: Path, *, as_json: bool) -> None:
    """Say where the server is and how to use its key."""
    installation = server.installation
    assert installation is not None  # noqa: S101 - it has started
    device = "cpu" if server.options.on_cpu(installation) else "gpu"
    if as_json:
        facts = {"url": server.url, "model": server.options.name, "adapters": adapters, "key_file": str(key_file)}
        print_json({**facts, "pid": server.pid, "vllm": installation.version, "device": device})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for what, value in (
        ("serving", f"{server.options.model} (vLLM {installation.version}, {device})"),
        ("url", server.url),
        ("names", ", ".join([server.options.name, *adapters])),
        ("key", f'export VLLM_API_KEY="$(cat {key_file})"'),
        ("use", f"vllm/{(adapters or [server.options.name])[-1]}@{server.url}"),
        ("stop", "Ctrl-C"),
    ):
        table.add_row(Text(what, "bold"), Text(value, overflow="fold"))
    shown.print(table)


def _watch(shown: Console, server: VLLMServer, every: float) -> None:
    """Show the counters until interrupted: one line that changes in a terminal, a line at each change elsewhere."""
    if shown.is_terminal:
        from rich.live import Live
        from rich.text import Text

        with Live(console=shown, auto_refresh=False, transient=True) as live:
            before, then = server.metrics(), time.monotonic()
            while True:
                time.sleep(every)
                now, at = server.metrics(), time.monotonic()
                live.update(Text(metrics_line(now, before, at - then), "dim"), refresh=True)
                before, then = now, at
    before, then = server.metrics(), time.monotonic()
    while True:
        time.sleep(every)
        server.check_alive()
        at = time.monotonic()
        if at - then < _PLAIN_EVERY_S:
            continue
        now = server.metrics()
        if now != before:
            say(metrics_line(now, before, at - then))
        before, then = now, at


def metrics_line(now: ServerMetrics, before: ServerMetrics, seconds: float) -> str:
    """Return what a server does, on one line.

    Args:
        now: Its counters.
        before: Its counters a while ago.
        seconds: How long that is, above 0.
    """
    rate = (now.generated_tokens - before.generated_tokens) / seconds
    return (
        f"running {now.running}  waiting {now.waiting}  KV cache {now.kv_use:.0%}  "
        f"prefix hits {now.hit_rate:.0%} of {now.prefix_queries} tokens  {rate:.1f} tokens/s  "
        f"{now.generated_tokens} written"
    )
