"""Boosted trees as plain arrays: what was fitted elsewhere is only followed here, from a root to a leaf a tree.

Legend: N rows, F inputs, M nodes of all trees, T trees a class, K classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

Float = NDArray[np.float32]

BLOCK = 2048  # rows followed together


@dataclass(frozen=True)
class Trees:
    """Trees of K classes; children are told by how many nodes further they lie, 0 in leaves."""

    feature: NDArray[np.uint8]  # [M] input that a node asks
    threshold: Float  # [M] rows at or below it go left
    left: NDArray[np.int8]  # [M]
    right: NDArray[np.int8]  # [M]
    missing_left: NDArray[np.bool_]  # [M] where NaN goes
    value: Float  # [M] of leaves, 0 elsewhere
    root: NDArray[np.int32]  # [T, K]
    start: Float  # [K] log-odds before the first tree

    @cached_property
    def depth(self) -> int:
        """Questions from a root to the farthest leaf."""
        at, steps = np.unique(self.root), 0
        while len(at := at[self.left[at] > 0]):
            at, steps = np.unique(np.concatenate([at + self.left[at], at + self.right[at]])), steps + 1
        return steps

    def probabilities(self, rows_NF: Float) -> Float:
        """Return class probabilities [N, K]; NaN inputs are allowed."""
        parts = [self._block(rows_NF[i : i + BLOCK]) for i in range(0, len(rows_NF), BLOCK)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.start)), np.float32)

    def _block(self, rows_NF: Float) -> Float:
        row = np.arange(len(rows_NF))[:, None]
        node = np.broadcast_to(self.root.ravel(), (len(rows_NF), self.root.size))
        for _ in range(self.depth):
            asked = rows_NF[row, self.feature[node]]
            goes_left = np.where(np.isnan(asked), self.missing_left[node], asked <= self.threshold[node])
            node = node + np.where(goes_left, self.left[node], self.right[node])
        logit = self.start + self.value[node].reshape(len(rows_NF), *self.root.shape).sum(1, dtype=np.float64)
        odds = np.exp(logit - logit.max(1, keepdims=True))
        return np.asarray(odds / odds.sum(1, keepdims=True), np.float32)

    def save(self, path: Path, notes: dict[str, list[str]]) -> None:
        """Write the arrays as safetensors, ``notes`` as JSON beside them."""
        arrays = {one.name: np.ascontiguousarray(getattr(self, one.name)) for one in fields(self)}
        save_file(arrays, path, {name: json.dumps(value) for name, value in notes.items()})

    @classmethod
    def load(cls, path: Path) -> tuple[Trees, dict[str, list[str]]]:
        """Read arrays and notes back."""
        with safe_open(path, "numpy") as file:
            arrays = {one.name: file.get_tensor(one.name) for one in fields(cls)}
            notes = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
        return cls(**arrays), notes
