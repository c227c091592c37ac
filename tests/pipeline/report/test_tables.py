import pytest

from pipeline.report.contents import Metric
from pipeline.report.tables import duration, html_table, size, value


@pytest.mark.parametrize(("seconds", "said"), [(8.24, "8.2 s"), (250.0, "4 min 10 s"), (11_100.0, "3 h 05 min")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(("number", "said"), [(12, "12 B"), (3_200_000_000, "3.2 GB"), (57 * 10**14, "5700.0 TB")])
def test_sizes(number: int, said: str) -> None:
    assert size(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(None, "not measured"), (6000.0, "6,000"), (1.0134, "1.013"), (0.000412, "0.000412"), (12345.6, "12,345.6")],
)
def test_metric_values(number: float | None, said: str) -> None:
    assert value(Metric("report", "x", number, "")) == said


def test_tables_escape_and_align() -> None:
    text = html_table(["name", "count>"], [["<b>", "3"]])
    assert "<td>&lt;b&gt;</td>" in text
    assert '<td class="n">3</td>' in text
