"""Models, the promoted one, and the way back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ModelError
from pipeline.stores import catalog, registry
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers


def _register(conn: Connection, model_id: str, run_id: str = "r") -> None:
    registry.register_model(
        conn, model_id, run_id=run_id, uri=f"models/{model_id}", data_hash="d", config={"latent": 8}, metrics={}
    )
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, model_id, pa.table({"spectrum_id": np.array([1])}))


@pytest.fixture
def model(conn: Connection, calibration: Callable[..., pa.Table]) -> Callable[..., None]:
    """Register a model with calibrated scores."""

    def make(model_id: str, run_id: str = "r") -> None:
        _register(conn, model_id, run_id)
        catalog.write_calibration(conn, model_id, calibration([1], [0.5]))

    return make


def _promoted(conn: Connection) -> str | None:
    model = registry.promoted_model(conn)
    return model.model_id if model else None


def test_registering_again_changes_nothing(conn: Connection, model: Callable[..., None]) -> None:
    model("aa1")
    before = registry.find_model(conn, "aa1")
    model("aa1")
    assert registry.find_model(conn, "aa1") == before
    assert before.collection == "skysift_aa1"
    assert before.config == {"latent": 8}
    assert registry.scored(conn) == {"aa1": 1}


def test_models_are_found_by_the_beginning_of_their_id(conn: Connection) -> None:
    for name in ("aa1", "aa2", "bb1", "bb12"):
        _register(conn, name)
    assert registry.find_model(conn, "aa2").model_id == "aa2"
    assert registry.find_model(conn, "bb1").model_id == "bb1"
    for name, message in (
        ("aa", r"'aa' names several models \(aa1, aa2, …\); give more of the id"),
        ("cc", "'cc' names no model; `skysift models list` shows them"),
        ("", "names no model"),
        ("promoted", "no model is promoted yet"),
    ):
        with pytest.raises(ModelError, match=message):
            registry.find_model(conn, name)
    assert [one.model_id for one in registry.list_models(conn)] == ["bb12", "bb1", "aa2", "aa1"]


def test_a_runs_first_model_is_promoted_by_itself(conn: Connection, model: Callable[..., None]) -> None:
    for name, run in (("aa1", "r"), ("aa2", "r"), ("bb1", "s")):
        model(name, run)
    assert registry.promote_first(conn, "r", "aa1")
    assert not registry.promote_first(conn, "r", "aa1")
    assert not registry.promote_first(conn, "r", "aa2")
    assert not registry.promote_first(conn, "s", "aa2")  # scored by another run, not its own model
    assert _promoted(conn) == "aa1"
    assert registry.promote_first(conn, "s", "bb1")
    registry.promote(conn, "aa2")
    assert not registry.promote_first(conn, "s", "bb1")  # a resumed run does not undo a person's choice
    assert _promoted(conn) == "aa2"


def test_rolling_back_goes_further_each_time(conn: Connection, model: Callable[..., None]) -> None:
    for name in ("aa1", "bb1", "cc1"):
        model(name)
        registry.promote(conn, name)
    assert registry.rollback(conn).model_id == "bb1"
    assert registry.rollback(conn).model_id == "aa1"
    with pytest.raises(ModelError, match="no earlier model to go back to"):
        registry.rollback(conn)
    registry.promote(conn, "cc1")
    assert registry.rollback(conn).model_id == "aa1"
    actions = [(event["action"], event["detail"]) for event in registry.history(conn, "aa1")]
    assert actions == [
        ("promote", {"instead_of": None}),
        ("rollback", {"instead_of": "bb1"}),
        ("rollback", {"instead_of": "cc1"}),
    ]
    assert "@" in registry.history(conn, "aa1")[0]["who"]


def test_promoting_what_is_promoted_is_not_an_event(conn: Connection, model: Callable[..., None]) -> None:
    model("aa1")
    registry.promote(conn, "aa1")
    registry.promote(conn, "promoted")
    assert len(registry.history(conn, "aa1")) == 1


def test_a_model_without_calibrated_scores_is_not_promoted(conn: Connection) -> None:
    _register(conn, "aa1")
    with pytest.raises(ModelError, match="model aa1 has no calibrated scores to show"):
        registry.promote(conn, "aa1")


def test_deleting(conn: Connection, model: Callable[..., None]) -> None:
    for name in ("aa1", "bb1"):
        model(name)
        registry.promote(conn, name)
    with pytest.raises(ModelError, match="model bb1 is promoted; promote another one before deleting it"):
        registry.delete_model(conn, "bb1")
    registry.delete_model(conn, "aa1")
    assert [one.model_id for one in registry.list_models(conn)] == ["bb1"]
    assert [one.state for one in registry.list_models(conn, deleted=True)] == ["ready", "deleted"]
    with pytest.raises(ModelError, match="names no model"):
        registry.promote(conn, "aa1")
    with pytest.raises(ModelError, match="no earlier model"):
        registry.rollback(conn)
    assert registry.scored(conn) == {"bb1": 1}
    assert [event["action"] for event in registry.history(conn, "aa1")] == ["promote", "delete"]
    model("aa1")  # trained again, bit by bit the same
    assert registry.find_model(conn, "aa1").state == "ready"
