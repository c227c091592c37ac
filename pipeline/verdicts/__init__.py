"""Verdicts on anomalies: artefact or astrophysics, of which kind, and why."""
