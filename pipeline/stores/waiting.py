"""Waiting for PostgreSQL: pods start in any order, and the tables come when another one has made them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import StoreError
from pipeline.stores import postgres

PAUSE = 2.0  # s between attempts

Say = Callable[[str], None]
T = TypeVar("T")


def wait_for_server(url: str, seconds: float, say: Say) -> postgres.Connection:
    """Return a connection as soon as the server takes one.

    Args:
        url: of PostgreSQL.
        seconds: how long to wait; 0: try once.
        say: receives a line whenever the reason to wait is another one.

    Raises:
        StoreError: it did not in that time; the message is the last refusal's.
    """
    return _until(lambda: postgres.connect(url), seconds, say)


def wait_for_schema(url: str, seconds: float, say: Say) -> None:
    """Return as soon as the database has the migrations of this skysift.

    Raises:
        StoreError: it has not in that time; the message says what is missing.
    """

    def check() -> None:
        conn = postgres.connect(url)
        try:
            postgres.check_schema(conn)
        finally:
            conn.close()

    _until(check, seconds, say)


def _until(attempt: Callable[[], T], seconds: float, say: Say) -> T:
    end, told = time.monotonic() + seconds, ""
    while True:
        try:
            return attempt()
        except StoreError as error:
            if time.monotonic() + PAUSE > end:
                raise
            if str(error) != told:
                told = str(error)
                say(f"waiting: {told}")
        time.sleep(PAUSE)
