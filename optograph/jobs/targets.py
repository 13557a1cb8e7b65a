"""Finding what a job names: Python objects by ``FILE.py:NAME`` or ``module:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from optograph.errors import OptographError, UserError
from optograph.storage import content_hash


def resolve(target: str, base: Path) -> Any:
    """Import the object that ``target`` names.

    Args:
        target: ``FILE.py:NAME`` (relative to ``base``) or ``package.module:NAME``.
        base: Folder of the job file.

    Raises:
        UserError: The form is wrong, the file or module is missing, or it has no such name.
    """
    where, separator, name = target.rpartition(":")
    if not separator or not where or not name:
        raise UserError(f"cannot read target {target!r}: write FILE.py:NAME or package.module:NAME")
    module = load_module(where, base)
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"{where!r} has no {name!r}; it defines {_names(module)!r}")
    return found


def _names(module: ModuleType) -> list[str]:
    """Return what can be a target in a module: what it defines itself, else what it imports too."""
    known = {key: one for key, one in vars(module).items() if callable(one) or hasattr(one, "invoke")}
    own = [key for key, one in known.items() if getattr(one, "__module__", module.__name__) == module.__name__]
    apps = [key for key, one in known.items() if hasattr(one, "invoke") and not isinstance(one, type)]
    return sorted(key for key in {*own, *apps} or known if not key.startswith("_"))


def load_module(where: str, base: Path) -> ModuleType:
    """Import ``FILE.py`` (relative to ``base``) or ``package.module``.

    Raises:
        UserError: It is missing, or fails.
    """
    return _from_file(base / where) if where.endswith(".py") else _from_name(where)


def call_with(factory: Callable[..., Any], available: dict[str, Any]) -> Any:
    """Call a factory with those of the available arguments that it names.

    Raises:
        UserError: It needs an argument that is not available.
    """
    signature = inspect.signature(factory)
    names = signature.parameters
    lacking = [
        name
        for name, one in names.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and name not in available
    ]
    if lacking:
        raise UserError(f"the factory asks for {lacking!r}; it may take {sorted(available)!r} only")
    try:
        return factory(**{name: value for name, value in available.items() if name in names})
    except OptographError:
        raise
    except Exception as error:
        raise _broken(f"the factory {factory.__name__!r}", error) from error


def takes(factory: Callable[..., Any], name: str) -> bool:
    """Tell whether a factory has an argument of this name."""
    return name in inspect.signature(factory).parameters


def _broken(what: str, error: Exception) -> UserError:
    """Say where a user's code failed: the last line of it that ran, or the line that does not parse."""
    lines = traceback.extract_tb(error.__traceback__)
    own = [
        line for line in lines if "optograph" not in Path(line.filename).parts[-3:-1] and "<frozen" not in line.filename
    ]
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own and not isinstance(error, SyntaxError) else ""
    return UserError(f"{what} failed{where}: {type(error).__name__}: {error}")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"workflow file {str(path)!r} does not exist (paths are relative to the job file)")
    name = f"optograph_target_{content_hash(str(path.resolve()))[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))  # what stands beside the file can be imported, as in a script
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, OptographError) or not isinstance(error, Exception):
            raise
        broken = _broken(f"workflow file {path.name!r}", error)
        if isinstance(error, ImportError) and "relative import" in str(error):
            broken = UserError(f"{broken}; a file in a package is named as package.module:NAME")
        raise broken from error
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"cannot import {name!r}: {error}; is it installed, or should it be FILE.py:NAME?") from error
    except OptographError:
        raise
    except Exception as error:
        raise _broken(f"module {name!r}", error) from error
