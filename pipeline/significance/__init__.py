"""Significance: raw scores to scores given (z, S/N), to p-values against calibration spectra, to q-values and ranks."""

from pipeline.significance.calibration import MIN_CALIBRATION, Calibrated, calibrate_scores
from pipeline.significance.discovery import q_values, ranks

__all__ = ["MIN_CALIBRATION", "Calibrated", "calibrate_scores", "q_values", "ranks"]
