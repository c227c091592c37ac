import base64
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.report.contents import Catalog, Contents, Spectrum
from pipeline.report.page import gallery_png, render

SECTIONS = ("counts", "quality", "training", "scores", "maps", "anomalies", "reconstructions", "quarantine")


class Page(HTMLParser):
    """Collects tags with their attributes, and checks that they nest."""

    void = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(contents: Contents) -> str:
    return render(contents)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def _pictures(page: Page) -> list[str]:
    data = [(image["src"] or "").removeprefix("data:image/svg+xml;base64,") for image in page.of("img")]
    return [base64.b64decode(one, validate=True).decode() for one in data]


def test_nothing_is_loaded_from_elsewhere(page: Page, text: str) -> None:
    assert not page.of("script")
    assert not page.of("link")
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "data", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/svg+xml;base64,", "#")), (tag, value)
    assert "@import" not in text
    assert "url(" not in text
    for picture in _pictures(page):
        links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', picture)
        assert all((a or b).startswith(("#", "data:image/png;base64,")) for a, b in links)


def test_every_section_is_there_and_linked(page: Page) -> None:
    assert [section["id"] for section in page.of("section")] == list(SECTIONS)
    assert [link["href"] for link in page.of("a")] == [f"#{name}" for name in SECTIONS]


def test_every_picture_is_told_in_words(page: Page, contents: Contents) -> None:
    images = page.of("img")
    assert len(images) == 2 + 4 + 2 + len(contents.top) + len(contents.examples)
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert any("absorption at 4680 Å" in (image["alt"] or "") for image in images)


def test_the_numbers_are_there(text: str) -> None:
    for said in ("6,210 spectra planned", "6,000 ingested", "210 in quarantine", "3f0c2b1a9d8e7f66", "truncated",
                 "118 done, 2 failed, 1 empty", "612.0 MB", "removed by zwarn", "not measured"):  # fmt: skip
        assert said in text


def test_what_users_name_is_escaped(contents: Contents, text: str) -> None:
    nasty = '<script>alert("x")</script>&'
    facts = replace(contents.facts, run=nasty, survey=nasty)
    other = render(replace(contents, facts=facts, top=[], examples=[]))
    assert "<script" not in other
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;" in other
    assert "FIBERMAP &lt;b&gt;" in text
    Page(other)


def test_a_run_that_has_only_been_planned_gives_a_page(contents: Contents) -> None:
    nothing = np.empty(0)
    empty = np.empty(0, np.int64)
    catalog = Catalog(empty, empty, *[nothing] * 6, empty, empty > 0, empty > 0, nothing)
    facts = replace(contents.facts, model_id=None, model={}, created=None)
    bare = Contents(facts, 0, [], [], [], catalog, [], [], [], None)
    page = Page(render(bare))
    assert [section["id"] for section in page.of("section")] == list(SECTIONS)
    assert not page.of("img")


def test_twelve_spectra_without_model_or_scores_give_a_page(
    contents: Contents, spectrum_of: Callable[..., Spectrum]
) -> None:
    full = contents.catalog
    few = Catalog(*(np.asarray(getattr(full, name))[:12] for name in Catalog.__dataclass_fields__))
    unknown = np.full(12, np.nan)
    few = replace(few, score=unknown, p_value=unknown, chi2_reduced=unknown, rank=np.zeros(12, np.int64))
    shown = [replace(spectrum_of(), model=None, reason=None, score=np.nan, p_value=np.nan, rank=0)]
    small = replace(contents, catalog=few, history=[], top=[], examples=shown, embedding=None)
    text = render(small)
    assert "Nothing is scored yet" in text
    assert len(Page(text).of("img")) == 2  # the sky and the one spectrum


def test_twelve_scored_spectra_give_a_page(contents: Contents) -> None:
    full = contents.catalog
    few = Catalog(*(np.asarray(getattr(full, name))[:12] for name in Catalog.__dataclass_fields__))
    assert contents.embedding is not None
    sample = replace(contents.embedding, vectors=contents.embedding.vectors[:12], z=few.z, top=few.rank > 0)
    page = Page(render(replace(contents, catalog=few, embedding=sample, top=contents.top[:1], examples=[])))
    assert len(page.of("img")) == 2 + 4 + 2 + 1


def test_the_page_is_the_same_each_time(contents: Contents, text: str) -> None:
    assert render(contents) == text


def test_a_citation_is_asked_for_desi_only(contents: Contents, text: str) -> None:
    assert "acknowledgement" not in text
    desi = render(replace(contents, facts=replace(contents.facts, survey="s3://desidata/dr1"), top=[], examples=[]))
    assert "acknowledgement of the DESI Collaboration" in desi


def test_gallery_pictures_for_documents(contents: Contents) -> None:
    pictures = gallery_png(contents.top[:1])
    assert list(pictures) == [f"{contents.top[0].targetid}.png"]
    assert pictures[f"{contents.top[0].targetid}.png"].startswith(b"\x89PNG")
