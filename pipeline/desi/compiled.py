"""Numba's compiler as this package uses it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from numba import njit

T = TypeVar("T")


def compiled(function: T) -> T:
    """Machine code of ``function``, kept on disk where a cache folder can be written; releases the GIL."""
    compile_: Any = njit
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(T, compile_(cache=True, **options)(function))
    except RuntimeError:  # no writable folder for the cache, as in a container with a read-only root
        return cast(T, compile_(**options)(function))
