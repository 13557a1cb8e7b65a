"""The command line, one command or two to a file; ``optograph COMMAND --help`` shows an example of each."""

from __future__ import annotations

from optograph.cli.app import app, main

__all__ = ["app", "main"]
