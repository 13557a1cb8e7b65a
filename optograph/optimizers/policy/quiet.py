"""The training libraries without telemetry, progress bars and advertisements."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OFF = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}

_THEIRS = ("`is_gradient_checkpointing` is deprecated",)
"""Warnings that the libraries cause in each other (PEFT 0.21 with transformers 5.24)."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers, TRL and datasets within the block, and keep them from reporting to anybody.

    Their settings are of the process; they are put back at the end.
    """
    before = {name: os.environ.get(name) for name in _OFF}
    os.environ.update(_OFF)
    import datasets
    from huggingface_hub import constants

    logging: Any = importlib.import_module("transformers.utils.logging")
    telemetry, verbosity = constants.HF_HUB_DISABLE_TELEMETRY, logging.get_verbosity()
    bars = logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    constants.HF_HUB_DISABLE_TELEMETRY = True  # read from the environment once, when the hub's client is imported
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            for message in _THEIRS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry
        logging.set_verbosity(verbosity)
        if bars[0]:
            logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bars()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
