"""skysift: sift spectroscopic surveys for the strange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.access.survey import Survey

__all__ = ["Survey"]


def __getattr__(name: str) -> Any:
    """Import ``Survey`` when it is asked for: the command's --help need not wait for it."""
    if name == "Survey":
        from pipeline.access.survey import Survey

        return Survey
    raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
