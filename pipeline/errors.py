"""Errors that reach a user: one base class, one clear line each, one exit code a kind."""

from __future__ import annotations


class SkysiftError(Exception):
    """Base of all expected failures; its message is a single line that says what to do.

    ``exit_code`` is the exit status of the command that ends with this error.
    """

    exit_code = 1


class ConfigError(SkysiftError):
    """A config file, option or environment variable is wrong."""

    exit_code = 2


class InputError(SkysiftError):
    """A survey file or catalog is not what it should be.

    ``reason`` is a short code (``truncated``, ``not_fits``, …) kept in the quarantine table.
    """

    exit_code = 3

    def __init__(self, message: str, reason: str = "bad_input") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class MissingObject(InputError):
    """An object (file) that should exist does not."""

    def __init__(self, message: str, reason: str = "missing_file") -> None:
        super().__init__(message, reason)


class StoreError(SkysiftError):
    """Object storage, PostgreSQL or Milvus is unreachable, refuses us, or is full."""

    exit_code = 4


class RunError(SkysiftError):
    """A run cannot go on: changed inputs, a second driver, counts that do not add up."""

    exit_code = 5


class ModelError(SkysiftError):
    """A model file is missing, damaged or made for another grid."""

    exit_code = 6


class ModelsDisagree(SkysiftError):
    """Models that were compared disagree more than is allowed; their results are kept, and flagged."""

    exit_code = 7


class QueryError(SkysiftError):
    """A query is malformed, not allowed, out of range, too large or too slow.

    ``reason`` is a short code: ``bad_query``, ``forbidden``, ``too_large`` or ``timeout``.
    """

    exit_code = 8

    def __init__(self, message: str, reason: str = "bad_query") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[QueryError], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class NotFoundError(SkysiftError):
    """What was asked for by its name is not in the catalog."""

    exit_code = 9


def one_line(error: BaseException) -> str:
    """Return an error's message in one line; Ray hands on workers' errors wrapped, with lines of its own behind."""
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def first_sentence(error: BaseException) -> str:
    """Return the beginning of an error's one line: what libraries add for programmers helps no user."""
    return one_line(error).split(". ")[0][:200]
