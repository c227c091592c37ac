"""Config: defaults work, typos and wrong types are named, secrets are refused."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import models.config
import pipeline.config
from pipeline.config import Config, load
from pipeline.errors import ConfigError


def test_file_and_overrides_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('run = "mine"\n[survey]\npixels = ["main/dark/9144"]\n[gate]\nz_max = 4\n')
    config = load(file, ["gate.z_max=5", "survey.root=s3://desidata/x", "train.fit.beta=2", "gate.zwarn=[0, 4]"])
    assert config.run == "mine"
    assert config.survey.pixels == ("main/dark/9144",)
    assert config.survey.root == "s3://desidata/x"
    assert config.gate.z_max == 5.0
    assert config.gate.zwarn == (0, 4)
    assert config.train.fit.beta == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gait]\n", r"unknown key gait; did you mean gate\?"),
        ("[gate]\nzmax = 3\n", r"unknown key gate.zmax; did you mean gate.z_max\?"),
        ("[gate]\nz_max = 'far'\n", "bad.toml: gate.z_max wants a number, found 'far'"),
        ("gate = 3\n", r"gate is a section, found 3; set one of its keys, as gate\.KEY"),
        ("[gate]\nprimary_only = 1\n", "gate.primary_only wants true or false, found 1"),
        ("[stores]\nworkspace = ''\n", "stores.workspace is empty; name a folder"),
        ("[survey]\npixels = [[1]]\n", "survey.pixels wants text"),
        ("run = 'a b'\n", "run is 'a b'; use 1–63 letters"),
        ("[gate]\nz_min = 3.0\nz_max = 2.0\n", "z_min 3.0 is not below"),
        ("[ingest]\nchunk_size = 0\n", "ingest.chunk_size is 0; it must be at least 1"),
        ("[train]\nfit.segments = 0\n", "train.fit.segments is 0; it must be at least 1"),
        ("[train]\nfit.beta = nan\n", "train.fit.beta is nan; it must be at least 0"),
        ("[train]\nfit.learning_rate = 0\n", "learning_rate is 0.0; it must be above 0"),
        ("[ray]\ncpus = -1\n", "ray.cpus is -1; it must be at least 0"),
        ("[ingest]\nmax_failed = 2\n", "a fraction, 0 to 1"),
        ("[stores]\npostgres = 'postgresql://me:hunter2@db/x'\n", "holds a password"),
        ("this is not TOML", "is not TOML"),
    ],
)
def test_bad_config_is_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_missing_file_and_bad_override() -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml does not exist"):
        load("nowhere.toml")
    with pytest.raises(ConfigError, match="should read section"):
        load(None, ["z_max"])


def test_what_is_wrong_is_said_of_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[gate]\nz_max = 4\n")
    with pytest.raises(ConfigError, match=r"^command line: unknown key gate\.zmax"):
        load(file, ["gate.zmax=3"])
    with pytest.raises(ConfigError, match=r"run\.toml and command line: gate\.z_min 5\.0 is not below"):
        load(file, ["gate.z_min=5"])
    file.write_text("[gate]\nzmax = 4\n")
    with pytest.raises(ConfigError, match=r"run\.toml: unknown key gate\.zmax"):
        load(file, ["gate.z_min=5"])


def test_every_field_is_documented_beside_it() -> None:
    source = "".join(Path(module.__file__).read_text() for module in (pipeline.config, models.config))

    def check(cls: type) -> None:
        for field in fields(cls):
            assert re.search(rf"^    {field.name}: .+  # \S", source, re.MULTILINE) or is_dataclass(
                field.default_factory
            ), f"{cls.__name__}.{field.name} has no sentence"
            if isinstance(field.default_factory, type) and is_dataclass(field.default_factory):
                check(field.default_factory)

    check(Config)


def test_the_guide_lists_every_key_with_its_sentence() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "config.md").read_text()
    source = "".join(Path(module.__file__).read_text() for module in (pipeline.config, models.config))
    for key, sentence in re.findall(r"^    (\w+): [^#\n]+?  # (.+)$", source, re.MULTILINE):
        if "default_factory" not in source.split(f"    {key}: ")[1].split("\n")[0]:
            assert f"| `{key}` |" in guide, f"docs/config.md lacks {key}"
            assert sentence in guide, f"docs/config.md says something else of {key}"
