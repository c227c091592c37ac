"""Commits beside the work: everything once and in order, errors raised, nothing after them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.stages.commits import ROWS, commit_all
from pipeline.stages.result import QUARANTINE, ChunkResult


def result(number: int, rows: int = ROWS // 4) -> ChunkResult:
    return ChunkResult(str(number), "coadd", rows, pa.table({}), QUARANTINE.empty_table())


def ids(batches: Sequence[Sequence[ChunkResult]]) -> list[str]:
    return [one.chunk_id for batch in batches for one in batch]


def test_every_result_is_committed_once_in_order_in_batches_of_some_size() -> None:
    done: list[Sequence[ChunkResult]] = []
    commit_all((result(number) for number in range(11)), done.append)
    assert ids(done) == [str(number) for number in range(11)]
    assert [len(batch) for batch in done] == [4, 4, 3]


def test_results_are_taken_in_while_a_batch_is_written() -> None:
    taken, written = threading.Event(), []

    def results() -> Iterator[ChunkResult]:
        for number in range(4):
            yield result(number)
        yield result(4)
        taken.set()

    def commit(batch: Sequence[ChunkResult]) -> None:
        assert written or taken.wait(10)
        written.append(batch)

    commit_all(results(), commit)
    assert ids(written) == list("01234")


def test_an_error_is_raised_and_nothing_is_committed_after_it() -> None:
    done: list[Sequence[ChunkResult]] = []

    def commit(batch: Sequence[ChunkResult]) -> None:
        if done:
            raise StoreError("the disk is full")
        done.append(batch)

    with pytest.raises(StoreError, match="the disk is full"):
        commit_all((result(number) for number in range(100)), commit)
    assert ids(done) == list("0123")


def test_when_the_workers_fail_what_is_being_written_is_finished() -> None:
    done: list[Sequence[ChunkResult]] = []

    def results() -> Iterator[ChunkResult]:
        yield from (result(number) for number in range(5))
        raise StoreError("a worker died")

    with pytest.raises(StoreError, match="a worker died"):
        commit_all(results(), done.append)
    assert ids(done) == list("0123")


def test_no_result_is_no_commit() -> None:
    commit_all(iter(()), pytest.fail)
