"""Models: registration, promotion, rollback and deletion, each with its row in the audit table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extras import Json

from pipeline.errors import ModelError
from pipeline.stores.catalog import create_partition, drop_partition
from pipeline.stores.postgres import Connection, Cursor, scalar, transaction
from pipeline.stores.runs import audit


@dataclass(frozen=True)
class Model:
    """A row of ``models``, and whether it is the promoted one."""

    model_id: str
    run_id: str
    state: str  # training, ready or deleted
    uri: str
    collection: str
    data_hash: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    created_at: datetime
    promoted: bool


_SELECT = """
    SELECT m.model_id, m.run_id, m.state, m.uri, m.collection, m.data_hash, m.config, m.metrics, m.created_at,
           p.model_id IS NOT NULL
    FROM models m LEFT JOIN promotion p USING (model_id)"""


def collection_name(model_id: str) -> str:
    """Return the name of a model's Milvus collection."""
    return f"skysift_{model_id}"


def register_model(
    conn: Connection,
    model_id: str,
    *,
    run_id: str,
    uri: str,
    data_hash: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Register a trained model and make its partition of ``scores``; doing it again changes nothing but metrics."""
    with transaction(conn) as cur:
        cur.execute(
            """
            INSERT INTO models (model_id, run_id, state, uri, collection, data_hash, config, metrics)
            VALUES (%s, %s, 'ready', %s, %s, %s, %s, %s)
            ON CONFLICT (model_id) DO UPDATE SET state = 'ready', uri = excluded.uri, metrics = excluded.metrics""",
            (model_id, run_id, uri, collection_name(model_id), data_hash, Json(dict(config)), Json(dict(metrics))),
        )
        create_partition(cur, model_id)


def list_models(conn: Connection, *, deleted: bool = False) -> list[Model]:
    """Return the models, newest first; deleted ones only on request."""
    with transaction(conn) as cur:
        cur.execute(f"{_SELECT} WHERE m.state <> 'deleted' OR %s ORDER BY m.created_at DESC, m.model_id", (deleted,))
        return [Model(*row) for row in cur.fetchall()]


def find_model(conn: Connection, name: str) -> Model:
    """Return the model that ``name`` stands for: its id, the unique beginning of one, or ``promoted``.

    Raises:
        ModelError: no model, or more than one, has that name.
    """
    with transaction(conn) as cur:
        return _find(cur, name)


def promoted_model(conn: Connection) -> Model | None:
    """Return the promoted model, or None before the first promotion."""
    with transaction(conn) as cur:
        return _promoted(cur)


def _promoted(cur: Cursor) -> Model | None:
    cur.execute(f"{_SELECT} WHERE p.model_id IS NOT NULL")
    row = cur.fetchone()
    return Model(*row) if row else None


def _find(cur: Cursor, name: str) -> Model:
    if name == "promoted":
        model = _promoted(cur)
        if model is None:
            raise ModelError("no model is promoted yet; train and score one with `skysift run`")
        return model
    cur.execute(f"{_SELECT} WHERE m.state <> 'deleted' AND starts_with(m.model_id, %s) ORDER BY m.model_id", (name,))
    found = [Model(*row) for row in cur.fetchall()]
    exact = [model for model in found if model.model_id == name]
    if len(exact or found) != 1 or not name:
        several = ", ".join(model.model_id for model in found[:3])
        reason = f"names several models ({several}, …); give more of the id" if found and name else "names no model"
        raise ModelError(f"'{name}' {reason}; `skysift models list` shows them")
    return (exact or found)[0]


def scored(conn: Connection) -> dict[str, int]:
    """Return how many spectra each model has scored."""
    with transaction(conn) as cur:
        cur.execute("SELECT model_id, count(*) FROM scores GROUP BY 1")
        return dict(cur.fetchall())


def history(conn: Connection, model_id: str) -> list[dict[str, Any]]:
    """Return what the audit table has of a model, the oldest first: at, who, action, detail."""
    with transaction(conn) as cur:
        cur.execute("SELECT at, who, action, detail FROM audit WHERE object = %s ORDER BY id", (model_id,))
        return [dict(zip(("at", "who", "action", "detail"), row, strict=True)) for row in cur.fetchall()]


def promote(conn: Connection, name: str) -> Model:
    """Make a model the promoted one: its scores become ``anomaly_catalog``; audited.

    Raises:
        ModelError: there is no such model, or it has no calibrated scores.
    """
    with transaction(conn) as cur:
        cur.execute("LOCK TABLE promotion IN EXCLUSIVE MODE")
        model = _find(cur, name)
        cur.execute("SELECT EXISTS (SELECT FROM scores WHERE model_id = %s AND rank IS NOT NULL)", (model.model_id,))
        if not scalar(cur):
            raise ModelError(
                f"model {model.model_id} has no calibrated scores to show; run `skysift score` with it first"
            )
        if not model.promoted:
            _promote(cur, model, "promote")
        return _find(cur, model.model_id)


def promote_first(conn: Connection, run_id: str, model_id: str) -> bool:
    """Promote a run's first model, once: later models, and models promoted before, are left to a person.

    Returns:
        Whether it was promoted by this call.
    """
    with transaction(conn) as cur:
        cur.execute("LOCK TABLE promotion IN EXCLUSIVE MODE")
        cur.execute(
            """
            SELECT NOT EXISTS (SELECT FROM audit WHERE action IN ('promote', 'rollback') AND object = %(model)s)
               AND NOT EXISTS (SELECT FROM models m JOIN audit a ON a.object = m.model_id
                               WHERE m.run_id = %(run)s AND a.action = 'promote')
               AND EXISTS (SELECT FROM models WHERE run_id = %(run)s AND model_id = %(model)s)""",
            {"run": run_id, "model": model_id},
        )
        if cur.fetchone() != (True,):
            return False
        _promote(cur, _find(cur, model_id), "promote")
    return True


def rollback(conn: Connection) -> Model:
    """Go back to the model promoted before the present one, as often as there is one; audited.

    Raises:
        ModelError: nothing was promoted before, or only models deleted since.
    """
    with transaction(conn) as cur:
        cur.execute("LOCK TABLE promotion IN EXCLUSIVE MODE")
        for model_id in _earlier(cur):
            cur.execute("SELECT state FROM models WHERE model_id = %s", (model_id,))
            if cur.fetchone() == ("ready",):
                _promote(cur, _find(cur, model_id), "rollback")
                return _find(cur, model_id)
    raise ModelError("there is no earlier model to go back to; `skysift models promote` takes any model")


def _earlier(cur: Cursor) -> list[str]:
    """Models below the present one on the stack of promotions, the latest first; a rollback takes the top off."""
    cur.execute("SELECT action, object FROM audit WHERE action IN ('promote', 'rollback') ORDER BY id")
    stack: list[str] = []
    for action, model_id in cur.fetchall():
        if action == "rollback":
            while stack and stack[-1] != model_id:
                stack.pop()
        else:
            stack.append(model_id)
    present = stack[-1:]
    return [model_id for model_id in reversed(stack) if model_id not in present]


def _promote(cur: Cursor, model: Model, action: str) -> None:
    before = _promoted(cur)
    cur.execute(
        """INSERT INTO promotion (model_id) VALUES (%s)
           ON CONFLICT (only_row) DO UPDATE SET model_id = excluded.model_id, promoted_at = now()""",
        (model.model_id,),
    )
    audit(cur, action, model.model_id, {"instead_of": before.model_id if before else None})


def deletable(conn: Connection, name: str) -> Model:
    """Return the model to delete.

    Raises:
        ModelError: there is no such model, or it is the promoted one.
    """
    with transaction(conn) as cur:
        return _deletable(cur, name)


def _deletable(cur: Cursor, name: str) -> Model:
    model = _find(cur, name)
    if model.promoted:
        raise ModelError(f"model {model.model_id} is promoted; promote another one before deleting it")
    return model


def delete_model(conn: Connection, name: str) -> Model:
    """Delete a model's scores and ledger, and mark it deleted; drop its Milvus collection first; audited.

    Raises:
        ModelError: there is no such model, or it is the promoted one.
    """
    with transaction(conn) as cur:
        cur.execute("LOCK TABLE promotion IN EXCLUSIVE MODE")
        model = _deletable(cur, name)
        drop_partition(cur, model.model_id)
        for table in ("ledger", "quarantine"):
            cur.execute(f"DELETE FROM {table} WHERE model_id = %s", (model.model_id,))
        cur.execute("UPDATE models SET state = 'deleted' WHERE model_id = %s", (model.model_id,))
        audit(cur, "delete", model.model_id, {"run_id": model.run_id, "uri": model.uri})
    return model
