"""Writes what is kept of the chart's output: the golden files, and the hash of sql/ that names the migrations Job.

python -m tests.helm.regenerate, after a change of the chart or a new migration; the differences are to be read.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tests.helm.conftest import CHART, ROOT, template

GOLDEN = Path(__file__).parent / "golden"
PROFILES = ("tiny", "standard", "survey")


def schema_hash() -> str:
    """SHA-256 over the migrations, in order."""
    whole = hashlib.sha256()
    for file in sorted((ROOT / "sql").glob("*.sql")):
        whole.update(f"{file.name}\n".encode() + file.read_bytes())
    return whole.hexdigest()


def golden(profile: str, home: Path) -> str:
    """The whole release of one profile: a run, the service and all monitoring."""
    on = {"enabled": True}
    values = {
        "jobs": {"run": {"profile": profile}},
        "service": on | {"tokens": "tokens"},
        "templates": {"policy": on},
        "monitoring": {"podMonitor": on, "serviceMonitor": on},
        "profiles": {name: None for name in PROFILES if name != profile},
        "profile": profile,
    }
    return template(values, "dr1-pixel", "sky", home)


def main() -> None:
    """Write all of it."""
    (CHART / "schema.sha256").write_text(schema_hash() + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as home:
        for profile in PROFILES:
            (GOLDEN / f"{profile}.yaml").write_text(golden(profile, Path(home)), encoding="utf-8")


if __name__ == "__main__":
    main()
