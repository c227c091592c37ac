"""Thrift's compact protocol, as far as writing Parquet's metadata needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12

Item: TypeAlias = tuple[int, bytes]  # wire type, encoded value


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def i32(value: int) -> Item:
    """A 32-bit integer."""
    return _I32, _zigzag(value)


def i64(value: int) -> Item:
    """A 64-bit integer."""
    return _I64, _zigzag(value)


def binary(value: bytes) -> Item:
    """Bytes or UTF-8 text."""
    return _BINARY, varint(len(value)) + value


def listing(items: Sequence[Item]) -> Item:
    """A list of at least one item, all of one wire type."""
    kind, size = items[0][0], len(items)
    head = bytes([size << 4 | kind]) if size < 15 else bytes([0xF0 | kind]) + varint(size)
    return _LIST, head + b"".join(value for _, value in items)


def struct(fields: Mapping[int, Item]) -> Item:
    """A struct of fields by their ids, which ascend by less than 16."""
    return _STRUCT, members(fields) + b"\0"


def members(fields: Mapping[int, Item], after: int = 0) -> bytes:
    """Some fields of a struct, the last field before them having the id ``after``."""
    out = bytearray()
    for number, (kind, value) in fields.items():
        out.append(number - after << 4 | kind)
        out += value
        after = number
    return bytes(out)


def closed(encoded: bytes) -> Item:
    """A struct of the fields that `members` encoded."""
    return _STRUCT, encoded + b"\0"


def _zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)
