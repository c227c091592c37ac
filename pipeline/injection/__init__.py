"""Injection of known departures at a chosen significance, into simulated or into the survey's own spectra."""
