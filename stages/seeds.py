"""Seeds of a row: every purpose has its own random generator."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63): blake2b of the parts, such as (row seed, "latents")."""
    text = "\x1f".join(map(str, parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def shape_of(seed: int, shapes: int) -> int:
    """Which of several shapes of pictures a row has, in [0, shapes)."""
    return derive_seed(seed, "shape") % shapes
