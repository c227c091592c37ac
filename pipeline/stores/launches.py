"""Launches: which RayJob a run's driver runs in, told by the environment that KubeRay gives its pods."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

from psycopg2.extras import Json

from pipeline.config import Config
from pipeline.stores.postgres import Connection, transaction
from pipeline.termination import CLUSTER

NAMESPACE = "SKYSIFT_NAMESPACE"  # set by the chart


def record(conn: Connection, config: Config) -> None:
    """Note the RayJob, the run and its config; outside of KubeRay's pods, nothing."""
    cluster = os.environ.get(CLUSTER, "")  # the RayJob's name, a dash and five letters of KubeRay's own
    if not cluster:
        return
    row = (
        config.run,
        cluster.rsplit("-", 1)[0],
        os.environ.get(NAMESPACE, ""),
        cluster,
        next((word for word in sys.argv[1:] if not word.startswith("-")), ""),
        Json(config.as_dict()),
        version("skysift"),
    )
    with transaction(conn) as cur:
        cur.execute(
            """INSERT INTO launches (run_id, rayjob, namespace, ray_cluster, command, config, skysift_version)
               VALUES (%s, %s, %s, %s, %s, %s, %s)""",
            row,
        )
