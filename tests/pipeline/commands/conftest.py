"""A fresh database, and commands that use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import skysift

Run = Callable[..., str]


@pytest.fixture
def run(postgres_url: str, milvus_lite_uri: str, tmp_path: Path) -> Run:
    """Run a command; its output, or the error it ends with."""

    def call(*arguments: str, answer: str | None = None) -> str:
        stores = [f'stores.postgres="{postgres_url}"', f'stores.milvus="{milvus_lite_uri}"']
        options = [*(part for store in stores for part in ("-s", store)), "-w", str(tmp_path / "workspace")]
        result = CliRunner().invoke(skysift, [*arguments, *options], input=answer, standalone_mode=False)
        if result.exception:
            raise result.exception
        return result.output

    return call
