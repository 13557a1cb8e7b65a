"""The served policy: a server that is started when it is first needed, and adapters that are checked when they load."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from optograph.errors import ServingError
from optograph.jobs.training.parts import PolicyServer
from optograph.jobs.training.records import BASE, STATE, TrainState
from optograph.jobs.training.store import AdapterStore
from optograph.serving import LM, run_sync
from optograph.serving.vllm.adapters import Probe, ServedAdapterError, served_name
from optograph.serving.vllm.metrics import ServerMetrics
from optograph.storage import Journal


class Serving:
    """Serves adapters of a run by their hashes; from any thread.

    Args:
        make: Makes the server.
        store: Where the adapters are.
        probe_of: Gives the probe of an adapter; None for one that does nothing yet.
        tolerance: Largest difference in nats.
    """

    def __init__(
        self,
        make: Callable[[], PolicyServer],
        store: AdapterStore,
        probe_of: Callable[[str], Probe | None],
        tolerance: float,
    ) -> None:
        self._make = make
        self._store = store
        self._probe_of = probe_of
        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._server: PolicyServer | None = None
        self._models: dict[str, LM] = {}
        self._differences: dict[str, float] = {}
        self._unclear: dict[str, tuple[str, ...]] = {}

    def ready(self, hash_: str) -> LM | None:
        """Return the model of an adapter that is loaded and checked already."""
        return self._models.get(hash_)

    def model(self, hash_: str) -> LM:
        """Return the model of an adapter (`BASE`: of the base); server and adapter are started if need be.

        Raises:
            ServedAdapterError: What is served is not the adapter, or nothing is there to check it with.
            ServingError: The server does not start, or refuses the adapter.
            StorageError: The adapter is gone or damaged.
        """
        with self._lock:
            known = self._models.get(hash_)
            if known is not None:
                return known
            if self._server is None:
                server = self._make()
                server.start()
                self._server = server
            name = None if hash_ == BASE else self._load(self._server, hash_)
            model = self._models[hash_] = self._server.lm(name)
            return model

    def difference(self, hash_: str) -> float | None:
        """Return how far the probe of a loaded adapter was off, in nats; None where there was none."""
        return self._differences.get(hash_)

    def not_told_apart(self, hash_: str) -> tuple[str, ...]:
        """Return which others (``"base"``, ``"start"``) the probe of a loaded adapter does not tell it from."""
        return self._unclear.get(hash_, ())

    def _load(self, server: PolicyServer, hash_: str) -> str:
        probe = self._probe_of(hash_)
        name = server.load_adapter(self._store.folder(hash_))
        if name != served_name(hash_):
            raise ServedAdapterError(f"the server serves {name!r} where {served_name(hash_)!r} was loaded")
        self._unclear[hash_] = ("base",) if probe is None else probe.not_told_apart(self._tolerance)
        if probe is not None:
            try:
                self._differences[hash_] = server.check_adapter(name, probe, tolerance=self._tolerance)
            except ServingError:
                server.unload_adapter(name)
                raise
        return name

    def metrics(self) -> ServerMetrics | None:
        """Return the server's counters; None where no server runs, or one that counts otherwise."""
        with self._lock:
            try:
                return None if self._server is None else self._server.metrics()
            except ServingError:  # figures for the report: no reason to end a run
                return None

    def only(self, keep: Collection[str]) -> None:
        """Unload all adapters but these."""
        with self._lock:
            for hash_ in [one for one in self._models if one != BASE and one not in keep]:
                run_sync(self._models.pop(hash_).aclose())
                if self._server is not None:
                    self._server.unload_adapter(served_name(hash_))

    def stop(self) -> None:
        """End the server, if it runs; the next question starts it again."""
        with self._lock:
            server, self._server = self._server, None
            models, self._models = list(self._models.values()), {}
            try:
                for model in models:
                    run_sync(model.aclose())
            finally:
                if server is not None:
                    server.close()


def recorded_probes(journal: Journal) -> Callable[[str], Probe | None]:
    """Return what gives the probe of an adapter from the journal, as `Serving` wants it.

    It raises `ServedAdapterError` where an adapter has none, unless it is ``fresh`` and so does nothing yet.
    """

    def find(hash_: str) -> Probe | None:
        saved = journal.load_state(STATE)
        record = None if saved is None else TrainState.model_validate(saved).adapters.get(hash_)
        if record is not None and record.probe is not None:
            return Probe.from_json(journal.get(record.probe))
        if record is not None and record.made == "fresh":
            return None
        raise ServedAdapterError(
            f"nothing is recorded that {served_name(hash_)!r} could be checked with: its probe is missing"
        )

    return find
