"""ADQL 2.0 as PostgreSQL's SQL: parsed by queryparser, its geometry mapped to ``sphere_distance`` and ``cone_search``.

queryparser writes geometry for pgSphere, which is not needed here: POINT, CIRCLE, CONTAINS and DISTANCE are rewritten,
and anything else of it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import QueryError

MAX_LENGTH = 20_000  # characters of a query
_TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|\w+|<->|!@|&&|[<>=!|]+|\S", re.UNICODE
)
_PIXELS = {"spoint", "scircle", "spoly", "sbox", "spath", "spoint_dwithin", "square_degrees", "coord1", "coord2",
           "centroid", "&&", "!@", "@", "<->"}  # fmt: skip
_COLUMN = re.compile(r"(?:(\w+|\"[^\"]+\")\.)?(ra|dec)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def translate(query: str) -> str:
    """Return a query's SQL.

    Raises:
        QueryError: it is too long, is not ADQL, or uses geometry other than POINT, CIRCLE, CONTAINS and DISTANCE.
    """
    from queryparser.adql import ADQLQueryTranslator
    from queryparser.exceptions import QueryError as Refused
    from queryparser.exceptions import QuerySyntaxError

    if len(query) > MAX_LENGTH:
        raise QueryError(f"the query has {len(query):,} characters, at most {MAX_LENGTH:,} are read")
    if not query.strip():
        raise QueryError("QUERY is empty; write an ADQL SELECT")
    if ";" in _TOKEN.findall(query.strip().rstrip(";")):
        raise QueryError("the query is not ADQL: one SELECT is answered, not several statements")
    try:
        found = str(ADQLQueryTranslator(query).to_postgresql())
    except QuerySyntaxError as error:
        raise QueryError(f"the query is not ADQL: {_where(error)}") from None
    except (Refused, RecursionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # The translator stumbles over some queries that its parser takes.
        raise QueryError(f"the query cannot be translated from ADQL ({type(error).__name__}: {error})") from None
    return _Rewriter(_TOKEN.findall(found.rstrip().rstrip(";"))).rewritten()


def _where(error: Exception) -> str:
    """Say where the parser stopped."""
    places = error.args[0] if error.args else getattr(error, "syntax_errors", None)
    places = getattr(error, "syntax_errors", places)
    if isinstance(places, Sequence) and places and isinstance(places[0], Sequence) and len(places[0]) == 3:
        line, column, token = places[0]
        return f"line {line}, column {column + 1}, near '{token}'"
    return str(error)


class _Rewriter:
    """Tokens of SQL with pgSphere's functions, read once from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def rewritten(self) -> str:
        out: list[str] = []
        while self._at < len(self._tokens):
            out.append(self._next())
        return " ".join(out)

    def _next(self) -> str:
        word, following = self._tokens[self._at].lower(), self._peek(1)
        if word == "spoint" and following == "(":
            return self._contains()
        if word == "spoint_dwithin" and following == "(":
            point, centre, radius = self._arguments("spoint_dwithin")
            return _inside(_point(point), _point(centre), _one_radian(radius), outside=False)
        if word == "degrees" and following == "(" and self._peek(2) == "spoint" and (found := self._distance()):
            return found
        if word in _PIXELS:
            raise QueryError("of ADQL's geometry POINT, CIRCLE, CONTAINS and DISTANCE are supported")
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self, ahead: int) -> str:
        at = self._at + ahead
        return self._tokens[at].lower() if at < len(self._tokens) else ""

    def _contains(self) -> str:
        point = self._arguments("spoint")
        sign = self._peek(0)
        if sign not in ("@", "!@") or self._peek(1) != "scircle":
            raise QueryError("a POINT is used in CONTAINS(POINT(…), CIRCLE(…)) or DISTANCE(POINT(…), POINT(…)) only")
        self._at += 1
        centre, radius = self._arguments("scircle")
        return _inside(_radians(point), _point(centre), _one_radian(radius), outside=sign == "!@")

    def _distance(self) -> str:
        before = self._at
        (inside,) = self._arguments("degrees")
        inner = _Rewriter(inside)
        first = inner._arguments("spoint")
        if inner._peek(0) != "<->":
            self._at = before
            return ""
        inner._at += 1
        second = inner._arguments("spoint")
        return f"sphere_distance({', '.join((*_radians(first), *_radians(second)))})"

    def _arguments(self, name: str) -> list[list[str]]:
        """Read ``name(a, b, …)`` and return the tokens of each argument."""
        if self._peek(0) != name or self._peek(1) != "(":
            raise QueryError("of ADQL's geometry POINT, CIRCLE, CONTAINS and DISTANCE are supported")
        self._at += 2
        found: list[list[str]] = [[]]
        depth = 1
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return found
            if token == "," and depth == 1:
                found.append([])
            else:
                found[-1].append(token)
        raise QueryError("the query is not ADQL: a parenthesis is not closed")


def _point(tokens: list[str]) -> list[str]:
    return _radians(_Rewriter(tokens)._arguments("spoint"))


def _radians(arguments: list[list[str]]) -> list[str]:
    return [_one_radian(one) for one in arguments]


def _one_radian(tokens: list[str]) -> str:
    (inside,) = _Rewriter(tokens)._arguments("radians")
    return _joined(_Rewriter(inside).rewritten())


def _joined(text: str) -> str:
    """Numbers and column names as one word again."""
    return re.sub(r"\s*\.\s*", ".", re.sub(r"([+-]) (?=[\d.])", r"\1", text))


def _inside(point: list[str], centre: list[str], radius: str, *, outside: bool) -> str:
    """The condition that a point lies in a circle; the catalog's own positions in a fixed circle go by its index."""
    ra, dec = (_COLUMN.fullmatch(one) for one in point)
    fixed = all(_NUMBER.fullmatch(one) for one in (*centre, radius))
    given = ", ".join((*centre, radius))
    if not outside and fixed and ra and dec and ra[2].lower() == "ra" and dec[2].lower() == "dec" and ra[1] == dec[1]:
        table = f"{ra[1]}." if ra[1] else ""
        return f"{table}spectrum_id IN (SELECT c.spectrum_id FROM cone_search({given}) AS c)"
    sign = ">" if outside else "<="
    return f"sphere_distance({', '.join((*point, *centre))}) {sign} {radius}"
