"""Seeds and hashes from facts: the same work folder and the same journal give the same choices, on every machine."""

from __future__ import annotations

import hashlib


def seed_from(identity: str, *parts: str | int) -> int:
    """Return a 32-bit seed for a purpose, named by `parts`, in the work folder `identity`."""
    text = "\0".join([identity, *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=4).digest(), "little")


def key_hash(path: str) -> int:
    """Return a signed 64-bit hash of an image's path, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8"), digest_size=8).digest(), "little", signed=True)
