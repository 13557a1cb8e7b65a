"""Sets finished runs of this example side by side: ``python examples/arithmetic/compare.py RUN [RUN ...]``.

Ends with an error where a run has not raised the accuracy on the sealed test, with a 95 % interval above 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def row(run: Path, test: dict[str, Any]) -> str:
    """Return a run's line of the table."""
    interval = f"{test['low']:+.3f} to {test['high']:+.3f}"
    return f"{run.name:<28}{test['before']:>8.3f}{test['after']:>9.3f}{test['difference']:>+12.3f}  {interval}"


def main(runs: list[Path]) -> int:
    """Print the table; returns 1 where a run has no sure gain."""
    tests = [json.loads((run / "result.json").read_text(encoding="utf-8"))["test"] for run in runs]
    print(f"\nSealed test, {tests[0]['n']} problems: share that the calculator got right\n")
    print(f"{'run':<28}{'start':>8}{'trained':>9}{'difference':>12}  95 % interval, paired")
    for run, test in zip(runs, tests, strict=True):
        print(row(run, test))
    print(f"\nReports: {' '.join(str(run / 'report.html') for run in runs)}")
    unsure = [run.name for run, test in zip(runs, tests, strict=True) if not test["low"] > 0]
    if unsure:
        print(f"No sure gain: {', '.join(unsure)}")
    return 1 if unsure else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main([Path(run) for run in sys.argv[1:]]))
