"""Redshift catalogs: streaming readers, their layouts, the science gate, and where the coadds lie."""
