"""``python -m optograph`` is the command line."""

from __future__ import annotations

from optograph.cli import main

if __name__ == "__main__":
    main()
