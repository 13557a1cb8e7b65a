"""What is killed: a run of ``optograph``, and a run of the peer on the same task and the same server."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kills.lives import Life, Nursery, start_fresh
from benchmarks.kills.outside import Committed, read_committed
from benchmarks.kills.server import MODEL
from benchmarks.kills.workload import CONCURRENCY, INSTRUCTIONS, MINIBATCH, TEAMS, TONES, rows
from optograph.optimizers.checkpoints import CHECKPOINTS
from optograph.storage.failpoints import FAILPOINTS, VARIABLE

PEER_PACKAGE = "gepa==0.1.4"
HITS = {"journal.checkpoint": (1, 2), "journal.close": (1,), "result.write": (1, 2), "result.rename": (1, 2)}
"""Passes at which a failpoint kills; the points of each transaction are passed hundreds of times."""
HITS_OF_TRANSACTIONS = (1, 2, 3, 7, 20, 60, 150)


class Optograph:
    """Runs of a job file, by the command line alone.

    The first life is ``optograph run JOB --run-dir DIR``; a later one is that again or ``optograph resume DIR``, as the
    dice fall, and sometimes LangGraph's checkpoint file is deleted before. A life that dies at a failpoint is a fresh
    process, the others are forked (see `Nursery`).
    """

    def __init__(self, job: Path, nursery: Nursery, folder: Path, rng: random.Random) -> None:
        self._job = job
        self._nursery = nursery
        self._folder = folder
        self._rng = rng

    @property
    def failpoints(self) -> Sequence[str]:
        """Every failpoint, at several of its passes."""
        rounds = len(HITS_OF_TRANSACTIONS)
        hits = {name: HITS.get(name, HITS_OF_TRANSACTIONS) for name in FAILPOINTS}
        return [f"{name}:{hits[name][number % len(hits[name])]}" for number in range(rounds) for name in FAILPOINTS]

    def start(self, run: Path, failpoint: str | None = None, *, fresh: bool = False) -> Life:
        """Start a life."""
        arguments = ["run", str(self._job), "--run-dir", str(run)]
        if self.committed(run).has_job:
            if self._rng.random() < 0.5:
                arguments = ["resume", str(run)]
            if self._rng.random() < 0.3:
                for suffix in ("", "-wal", "-shm"):
                    (run / f"{CHECKPOINTS}{suffix}").unlink(missing_ok=True)
        log = self._folder / f"{run.name}.log"
        if failpoint is None and not fresh:
            return self._nursery.start(arguments, self._folder, log)
        armed = {} if failpoint is None else {VARIABLE: failpoint}
        return start_fresh([sys.executable, "-m", "optograph", *arguments], self._folder, log, armed)

    def committed(self, run: Path) -> Committed:
        """Read the journal from outside."""
        return read_committed(run, self._folder / "copy")

    def result(self, run: Path) -> bytes:
        """Return ``result.json``."""
        return (run / "result.json").read_bytes()


class Peer:
    """Runs of GEPA with its own resume: the same ``run_dir`` again.

    Its best form is used: its cache of evaluations is on, so that what its saved state holds need not be paid again.
    """

    failpoints: Sequence[str] = ()

    def __init__(self, python: Path, url: str, folder: Path, *, seed: int, budget: int) -> None:
        self._python = python
        self._folder = folder
        self._settings = folder / "settings.json"
        settings = {
            "url": url,
            "model": MODEL,
            "instructions": INSTRUCTIONS,
            "tones": TONES,
            "teams": TEAMS,
            "train": rows("train"),
            "dev": rows("dev"),
            "minibatch": MINIBATCH,
            "concurrency": CONCURRENCY,
            "budget": budget,
            "cache": True,
            "seed": seed,
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(json.dumps(settings), encoding="utf-8")

    def start(self, run: Path, failpoint: str | None = None, *, fresh: bool = True) -> Life:
        """Start a life."""
        run.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("peer_life.py")
        command = [str(self._python), str(script), str(self._settings), str(run)]
        return start_fresh(command, self._folder, self._folder / f"{run.name}.log")

    def committed(self, run: Path) -> Committed:
        """Say nothing: its state names no calls, so only the server's log is counted."""
        return Committed()

    def result(self, run: Path) -> bytes:
        """Return the best candidate and its score."""
        outcome = json.loads((run / "outcome.json").read_text(encoding="utf-8"))
        return json.dumps([outcome["best"], outcome["score"]], sort_keys=True).encode()

    @staticmethod
    def counted(run: Path) -> int:
        """Return how many evaluations a finished run knows of."""
        return int(json.loads((run / "outcome.json").read_text(encoding="utf-8"))["counted"])


def peer_python(environment: Path) -> Path:
    """Return the interpreter of the peer's environment; make it where it is not there."""
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    probe = "import importlib.metadata as m; print('gepa==' + m.version('gepa'))"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
    if found.stdout.strip() != PEER_PACKAGE:
        print(f"installing {PEER_PACKAGE} into {environment} ...", file=sys.stderr, flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER_PACKAGE], check=True)
    return python
