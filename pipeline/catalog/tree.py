"""Where a coadd lies in DESI's trees, what it is called, and which ones a config names.

Paths follow the DESI data model: ``healpix/{survey}/{program}/{pix//100}/{pix}`` and
``tiles/cumulative/{tile}/{night}``, relative to the root of a reduction such as ``iron``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.catalog.pixels import N_PIXELS
from pipeline.errors import ConfigError, InputError

Tree = Literal["healpix", "tile"]
_WORD = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, order=True)
class HealpixFile:
    """The coadd of one sky pixel."""

    survey: str
    program: str
    healpix: int

    def __post_init__(self) -> None:
        if not (_WORD.fullmatch(self.survey) and _WORD.fullmatch(self.program)):
            raise InputError(
                f"survey '{self.survey}' and program '{self.program}' should be words, as they name folders; "
                "set gate.surveys and gate.programs to those you want",
                "bad_name",
            )

    @property
    def name(self) -> str:
        """Logical name, part of every spectrum's key."""
        return f"healpix/{self.survey}/{self.program}/{self.healpix}"

    def path(self, kind: str = "coadd") -> str:
        """Path of the ``coadd`` or ``redrock`` file."""
        folder = f"healpix/{self.survey}/{self.program}/{self.healpix // 100}/{self.healpix}"
        return f"{folder}/{kind}-{self.survey}-{self.program}-{self.healpix}.fits"


@dataclass(frozen=True, order=True)
class TileFile:
    """The cumulative coadd of one petal of one tile, up to one night."""

    tile: int
    night: int
    petal: int

    @property
    def name(self) -> str:
        """Logical name, part of every spectrum's key."""
        return f"tile/{self.tile}/{self.petal}/{self.night}"

    def path(self, kind: str = "coadd") -> str:
        """Path of the ``coadd`` or ``redrock`` file."""
        return f"tiles/cumulative/{self.tile}/{self.night}/{kind}-{self.petal}-{self.tile}-thru{self.night}.fits"


@dataclass(frozen=True)
class Selection:
    """The pixels and tiles a config names; nothing named selects everything."""

    pixels: tuple[HealpixFile, ...] = ()
    tiles: tuple[TileFile, ...] = ()
    whole_tiles: tuple[tuple[int, int], ...] = ()  # (tile, night), all petals

    def __bool__(self) -> bool:
        return bool(self.pixels or self.tiles or self.whole_tiles)

    @property
    def tree(self) -> Tree | None:
        """The tree of what is named."""
        if not self:
            return None
        return "healpix" if self.pixels else "tile"

    @classmethod
    def parse(cls, pixels: Sequence[str], tiles: Sequence[str]) -> Selection:
        """Read ``main/dark/9144`` and ``80693/20210204`` or ``80693/20210204/1``.

        Raises:
            ConfigError: a name reads otherwise, or both trees are named.
        """
        if pixels and tiles:
            raise ConfigError("survey.pixels and survey.tiles are both set: plan one tree in a run")
        petals, whole = [], []
        for text in tiles:
            match = re.fullmatch(r"(\d{1,9})/(\d{8})(?:/(\d))?", text)
            if match is None:
                raise ConfigError(
                    f"survey.tiles: '{text}' should read tile/night or tile/night/petal: 80693/20210204/1"
                )
            tile, night = int(match[1]), int(match[2])
            if match[3] is None:
                whole.append((tile, night))
            else:
                petals.append(TileFile(tile, night, int(match[3])))
        return cls(tuple(sorted({_pixel(p) for p in pixels})), tuple(sorted(set(petals))), tuple(sorted(set(whole))))


def _pixel(text: str) -> HealpixFile:
    match = re.fullmatch(rf"({_WORD.pattern})/({_WORD.pattern})/(\d{{1,5}})", text)
    if match is None or int(match[3]) >= N_PIXELS:
        raise ConfigError(
            f"survey.pixels: '{text}' should read survey/program/pixel, pixel below {N_PIXELS}: main/dark/9144"
        )
    return HealpixFile(match[1], match[2], int(match[3]))
