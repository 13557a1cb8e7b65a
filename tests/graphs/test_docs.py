"""The examples in docstrings run, and the public names are what the package says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from optograph import graphs

MODULES = [info.name for info in pkgutil.iter_modules(graphs.__path__, "optograph.graphs.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs=dict(vars(graphs))).failed == 0


def test_public_names() -> None:
    assert graphs.__all__ == sorted(graphs.__all__)
    for name in graphs.__all__:
        public = getattr(graphs, name)
        assert public.__doc__
        assert public.__module__.startswith("optograph.graphs.")
