"""Bearer tokens: kept as hashes in a JSON file, each with a name, scopes and a day on which it ends."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pipeline.errors import ConfigError

SCOPES: Final = ("read", "score", "metrics")
_PREFIX: Final = "skysift_"


@dataclass(frozen=True)
class Token:
    """A token as the file has it; the token itself is known to its owner alone."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    expires: str  # ISO 8601, UTC

    @property
    def expired(self) -> bool:
        """Whether its day has come."""
        return datetime.fromisoformat(self.expires) <= datetime.now(UTC)


def read(path: str | Path) -> list[Token]:
    """Read a file of tokens.

    Raises:
        ConfigError: it is missing, readable by others than its owner, or not what `skysift serve --new-token` writes.
    """
    place = Path(path)
    try:
        if place.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        found = json.loads(place.read_text(encoding="utf-8"))
        tokens = [Token(one["name"], one["sha256"], tuple(one["scopes"]), one["expires"]) for one in found]
        for one in tokens:
            if unknown := set(one.scopes) - set(SCOPES):
                raise ValueError(f"token {one.name} has scope {min(unknown)}, known are {', '.join(SCOPES)}")
            if datetime.fromisoformat(one.expires).tzinfo is None:
                raise ValueError(f"token {one.name} expires at a time without a zone")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}; make one with `skysift serve --tokens {path} --new-token NAME`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no file of tokens ({error}); make one with --new-token") from None
    return tokens


def add(path: str | Path, name: str, scopes: Sequence[str], days: float) -> str:
    """Make a token, add its hash to the file and return it: it is shown once.

    Raises:
        ConfigError: a scope is not known, the name is taken by a token that has not expired, or the file cannot be
            written.
    """
    if unknown := [one for one in scopes if one not in SCOPES]:
        raise ConfigError(f"'{unknown[0]}' is no scope; there are {', '.join(SCOPES)}")
    place = Path(path)
    kept = [one for one in (read(place) if place.exists() else []) if not one.expired]
    if any(one.name == name for one in kept):
        raise ConfigError(f"{path} has a token named {name} already; choose another name")
    secret = _PREFIX + secrets.token_urlsafe(32)
    ends = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    kept.append(Token(name, _hash(secret), tuple(scopes), ends))
    draft = place.with_name(place.name + ".part")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump([asdict(one) for one in kept], file, indent=1)
        draft.replace(place)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another file with --tokens") from None
    return secret


def find(tokens: Sequence[Token], secret: str) -> Token | None:
    """Return the token with this secret. 256 random bits need no slow hash; the comparison takes equally long."""
    digest = _hash(secret)
    found = None
    for one in tokens:
        if hmac.compare_digest(one.sha256, digest):
            found = one
    return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
