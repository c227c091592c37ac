"""``skysift simulate`` from the command line."""

from __future__ import annotations

from click.testing import CliRunner

from pipeline.simulate.command import simulate
from pipeline.simulate.survey import CATALOG_PATH


def test_writes_a_survey_and_says_so(tmp_path):
    out = tmp_path / "sky"
    arguments = [
        str(out),
        "--quasars",
        "12",
        "--seed",
        "3",
        "--quasar-fraction",
        "0.5",
        "--no-resolution",
        "--jobs",
        "1",
    ]
    result = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (out / CATALOG_PATH).exists()
    assert "12 quasar spectra among 24 rows" in result.stdout
    assert f"{out}-truth.parquet" in result.stdout
    assert "pixels" in result.stderr


def test_help_fits_a_screen():
    result = CliRunner().invoke(simulate, ["--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 40
    assert max(len(line) for line in result.output.splitlines()) <= 80


def test_quasars_are_required_and_positive():
    assert CliRunner().invoke(simulate, ["sky"]).exit_code == 2
    assert CliRunner().invoke(simulate, ["sky", "--quasars", "0"]).exit_code == 2
