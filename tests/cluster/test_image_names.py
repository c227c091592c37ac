"""The end-to-end tests' own reading of an image's name."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import image_values

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("", {}),
        ("skysift", {"repository": "skysift"}),
        ("skysift:0.1.0", {"repository": "skysift", "tag": "0.1.0"}),
        ("localhost:5000/skysift", {"repository": "localhost:5000/skysift"}),
        ("localhost:5000/a/skysift:x", {"repository": "localhost:5000/a/skysift", "tag": "x"}),
        (f"reg/skysift@{DIGEST}", {"repository": "reg/skysift", "digest": DIGEST}),
    ],
)
def test_image_names(image: str, wanted: dict[str, str]) -> None:
    found = image_values(image)
    assert found.pop("pullPolicy") == "IfNotPresent"
    assert found == wanted
