"""Ray Data source of work items: each item becomes one row, so that no block can cut a chunk in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

Item = TypeVar("Item")

# Ray Data gathers what fused operators hand on up to this size: large rows (spectra) pass one by one, small ones
# (results) make one block a task.
BLOCK_BYTES = 1 << 20
TASKS_A_WORKER = 4  # at least, where there are as many items


@dataclass(frozen=True)
class Work(Generic[Item]):
    """A function from an item to a one-row table, with the items grouped into read tasks."""

    function: Callable[[Item], pa.Table]
    groups: Sequence[Sequence[Item]]
    row_bytes: int  # estimated size of a row, for back-pressure
    ahead: bool = False  # work on the next item while the last one's row is used


class _WorkSource(Datasource):
    def __init__(self, work: Work[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work = work

    def get_name(self) -> str:
        function = self._work.function
        return getattr(function, "name", type(function).__name__)

    def estimate_inmemory_data_size(self) -> int:
        return sum(map(len, self._work.groups)) * self._work.row_bytes

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_ahead if self._work.ahead else _run, self._work.function, group),
                BlockMetadata(len(group), len(group) * self._work.row_bytes, None, None),
            )
            for group in self._work.groups
        ]


def _run(function: Callable[[Item], pa.Table], group: Sequence[Item]) -> Iterator[pa.Table]:
    return map(function, group)


def _ahead(function: Callable[[Item], pa.Table], group: Sequence[Item]) -> Iterator[pa.Table]:
    running = _second_thread().submit(function, group[0])
    for item in group[1:]:
        done, running = running.result(), _second_thread().submit(function, item)
        yield done
    yield running.result()


@cache
def _second_thread() -> ThreadPoolExecutor:
    """One thread a process: a new one for each task would leave memory behind in ever new arenas of malloc."""
    return ThreadPoolExecutor(1, "ahead")


def dataset(work: Work[Any], *, num_cpus: float = 1.0) -> Dataset:
    """Return a lazy dataset with one row for each item."""
    ray.data.DataContext.get_current().target_max_block_size = BLOCK_BYTES
    data: Dataset = ray.data.read_datasource(
        _WorkSource(work),
        num_cpus=num_cpus,
        override_num_blocks=max(1, len(work.groups)),
    )
    return data


def cells(arrays: Mapping[str, Any], kinds: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """Return each array flattened into one list cell, without a copy; an empty cell where there is no array."""
    made = {}
    for name, kind in kinds.items():
        flat = pa.array(np.asarray(arrays.get(name, ())).reshape(-1), kind)
        made[name] = pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat)
    return made


def arrays_of(row: pa.Table, kinds: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """Return the flat arrays of one row of ``cells``."""
    return {name: row[name].chunk(0).values.to_numpy(zero_copy_only=False) for name in kinds}


def on_actors(data: Dataset, actor: type, arguments: tuple[Any, ...], workers: int, n_gpus: int) -> Dataset:
    """Send whole rows through a pool of actors, one a GPU where there are any."""
    from ray.data import ActorPoolStrategy

    return data.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=1,
        num_gpus=1 if n_gpus else 0,
        compute=ActorPoolStrategy(size=workers),
    )


def rows(data: Dataset) -> Iterator[dict[str, Any]]:
    """Stream a dataset of one-row results to the driver as they finish."""
    tables: Iterable[pa.Table] = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for table in tables:
        yield from table.to_pylist()


def grouped(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into groups of at most ``size``, in order."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def tasks(items: Sequence[Item], most: int, workers: int) -> list[Sequence[Item]]:
    """Cut items into groups for read tasks: at most ``most`` each, and fewer where a worker would get too few tasks.

    Ray Data takes tens of milliseconds to follow up a task that has ended, so tasks want to be long; and several a
    worker, so that all end together.
    """
    return grouped(items, max(1, min(most, -(-len(items) // (TASKS_A_WORKER * workers)))))


def pack(table: pa.Table) -> bytes:
    """Serialise a small table into one cell of a row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def unpack(cell: bytes) -> pa.Table:
    """Read a table back from a cell."""
    return pa.ipc.open_stream(pa.py_buffer(cell)).read_all()
