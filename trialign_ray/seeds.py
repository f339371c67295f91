"""One seed per (run, stage, group), so that no stage's randomness depends on another's."""

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """A 63-bit seed that depends on `seed` and the names in `parts` alone."""
    text = "\x1f".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
