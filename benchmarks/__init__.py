"""Runnable benchmarks, ``python -m benchmarks.<name>``; what they measured lies in ``benchmarks/results``."""
