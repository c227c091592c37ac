"""``skysift query``, ``cone``, ``similar``, ``show``, ``export``, ``crossmatch``, and the README's SQL."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table
from click.testing import CliRunner
from matplotlib.image import imread

from pipeline import Survey
from pipeline.cli import skysift
from pipeline.errors import InputError, NotFoundError, QueryError, StoreError

from ..conftest import Sifted

pytestmark = [pytest.mark.servers, pytest.mark.slow]
README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def call(sifted: Sifted) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        verb, *rest = arguments
        options = ["-w", str(sifted.workspace)]
        result = CliRunner().invoke(skysift, [verb, *options, *rest], standalone_mode=False)
        if result.exception:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def strangest(sifted: Sifted) -> int:
    return int(sifted.query("SELECT targetid FROM anomaly_catalog WHERE rank = 1")[0]["targetid"])


def test_query_prints_a_table_that_fits(call: Callable[..., str], strangest: int) -> None:
    text = call("query", "SELECT * FROM anomaly_catalog ORDER BY rank LIMIT 60")
    assert str(strangest) in text
    assert "(not shown: " in text
    assert "(10 more rows: write them to a file with --out)" in text
    assert max(map(len, text.splitlines()[:20])) <= 100


@pytest.mark.parametrize("ending", ["fits", "parquet", "vot", "ecsv", "csv"])
def test_query_writes_files(call: Callable[..., str], tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    text = call("query", "SELECT targetid, z FROM anomalies ORDER BY rank LIMIT 7", "-o", str(path))
    assert "7 rows" in text
    form = {"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(ending)
    assert len(Table.read(path, format=form)) == 7


def test_query_through_a_pipe(call: Callable[..., str]) -> None:
    text = call("query", "SELECT rank, z FROM anomaly_catalog ORDER BY rank LIMIT 2", "-f", "csv")
    assert text.splitlines()[0] == '"rank","z"'
    assert "more rows than --limit" in call("query", "SELECT rank FROM anomaly_catalog", "--limit", "3")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE spectra", "cursor"),
        ("SELECT * FROM ledger", "permission denied for table ledger"),
        ("SELEC", "syntax error"),
        ("SELECT pg_sleep(9)::text AS a", "longer than 0.5 s"),
    ],
)
def test_bad_queries_end_in_one_line(call: Callable[..., str], sql: str, said: str) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        call("query", sql, "--timeout", "0.5")
    assert caught.value.exit_code == 8


def test_cone(call: Callable[..., str], sifted: Sifted, strangest: int) -> None:
    row = sifted.query("SELECT ra, dec FROM anomaly_catalog WHERE rank = 1")[0]
    assert str(strangest) in call("cone", str(row["ra"]), str(row["dec"]), "0.01", "--z", "0", "7")
    assert str(strangest) in call("cone", "--", str(row["ra"]), str(row["dec"]), "0.01")
    with pytest.raises(QueryError, match="dec is 95"):
        call("cone", "0", "95", "1")


def test_similar(call: Callable[..., str], sifted: Sifted, strangest: int, tmp_path: Path) -> None:
    text = call("similar", str(strangest), "-k", "4", "-f", "csv", "--z", "0.5", "9")
    rows = Table.read(text, format="ascii.csv")
    assert len(rows) == 4
    assert strangest not in rows["targetid"].tolist()
    with Survey(sifted.workspace) as survey:
        survey.spectrum(strangest).table().write(tmp_path / "one.fits")
    rows = Table.read(call("similar", str(tmp_path / "one.fits"), "-k", "2", "-f", "csv"), format="ascii.csv")
    assert rows["targetid"][0] == strangest
    with pytest.raises(NotFoundError, match="has TARGETID 5"):
        call("similar", "5")
    with pytest.raises(InputError, match="a file that can be read"):
        call("similar", str(tmp_path / "none.fits"))


def test_similar_draws_the_target_and_what_is_like_it(call: Callable[..., str], strangest: int, tmp_path: Path) -> None:
    heights = []
    for k in (1, 9):
        path = tmp_path / f"{k}.png"
        assert f"picture  {path}" in call("similar", str(strangest), "-k", str(k), "--picture", str(path))
        heights.append(len(imread(path)))
    assert heights[1] / heights[0] == pytest.approx((0.5 + 1.35 * 7) / (0.5 + 1.35 * 2), rel=0.01)
    with pytest.raises(StoreError, match="there is no folder"):
        call("similar", str(strangest), "--picture", str(tmp_path / "none" / "a.png"))


def test_show_tells_a_story_and_draws(call: Callable[..., str], strangest: int, tmp_path: Path) -> None:
    text = call("show", str(strangest), "-o", str(tmp_path / "a.png"))
    assert text.startswith(f"TARGETID {strangest}   rank 1 of ")
    assert "How strange    p = " in text
    assert "flux     " in text
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(NotFoundError):
        call("show", "5")


def test_export_and_crossmatch(call: Callable[..., str], tmp_path: Path) -> None:
    path = str(tmp_path / "a.fits")
    said = call("export", path)
    count = int(re.search(r": ([\d,]+) rows", said)[1].replace(",", ""))  # type: ignore[index]
    by_id = int(re.search(r"([\d,]+) matched by targetid", call("crossmatch", path))[1].replace(",", ""))  # type: ignore[index]
    assert by_id >= count  # a target with several spectra matches each of them with each
    assert f"{count:,} matched by ra, dec within 1″" in call("crossmatch", path, "--by", "position")


def test_the_sql_of_the_readme_runs(call: Callable[..., str]) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    queries = [part.strip() for block in blocks for part in block.split(";") if part.strip()]
    assert len(queries) >= 5
    for query in queries:
        call("query", "--", query)
