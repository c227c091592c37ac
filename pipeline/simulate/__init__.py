"""A simulated DESI survey with known anomalies: ``simulate(out, quasars, seed)``."""

from pipeline.simulate.survey import SimulationSummary, simulate, truth_path

__all__ = ["SimulationSummary", "simulate", "truth_path"]
