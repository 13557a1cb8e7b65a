"""Keeping the garbage collector off what was there before: a large program costs each call a tenth of its speed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heap_set_aside() -> Iterator[None]:
    """Have garbage collections within the block look only at objects that were made in it.

    A server loop makes many objects that wait for each other, so that full collections are frequent; each of them
    walks every module and data row of the program, for nothing. Where somebody has set objects aside already (an
    outer evaluation, or the application itself), nothing is changed.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
