"""Identity: 63-bit keys of spectra and content hashes of chunks."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_KEY_BITS = np.uint64(2**63 - 1)  # PostgreSQL and Milvus keys are signed 64-bit integers


def spectrum_id(targetid: NDArray[np.int64], coadd: str) -> NDArray[np.int64]:
    """Return the 63-bit key of each spectrum (targetid, coadd).

    Args:
        targetid: int64 [B], DESI TARGETIDs.
        coadd: logical name of the file, such as ``healpix/main/dark/9144``.

    Returns:
        int64 [B], non-negative. The mixing function is the finaliser of SplitMix64
        (Steele, Lea & Flood 2014, OOPSLA), seeded with the BLAKE2b hash of ``coadd``.
    """
    seed = int.from_bytes(hashlib.blake2b(coadd.encode(), digest_size=8).digest(), "little")
    x = np.asarray(targetid, dtype=np.int64).view(np.uint64) ^ np.uint64(seed)
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x & _KEY_BITS).view(np.int64)


def content_hash(*parts: bytes | str, length: int = 20) -> str:
    """Return ``length`` hex digits of the SHA-256 over the parts, each with its length in front."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:length]
