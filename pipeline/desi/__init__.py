"""DESI coadds: their bytes, their grid, and their arms joined into one spectrum."""
