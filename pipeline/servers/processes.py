"""Processes by their pid, where a zombie counts as dead: not every container's init reaps orphans."""

from __future__ import annotations

import time

import psutil


def alive(process: psutil.Process) -> bool:
    """Whether the process still does anything."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ended(process: psutil.Process, seconds: float) -> bool:
    """Wait until the process has ended; return whether it did so in time."""
    deadline = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
