"""The README keeps up with the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["pipeline", "models"])
def test_the_file_tree_lists_every_module(package: str) -> None:
    tree = README.split("line for each module</summary>")[1]
    for file in (ROOT / package).rglob("*.py"):
        if file.name not in ("__init__.py", "__main__.py"):
            _, _, rest = tree.partition(f"\n{file.parent.relative_to(ROOT).as_posix()}/ ")
            assert rest, f"the tree lacks {file.parent.name}/"
            listed = re.split(r"\n\S", rest)[0]
            assert f"\n  {file.name} " in listed, f"the tree lacks {file.relative_to(ROOT)}"


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), f"README links to {target}, which is not there"


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README
