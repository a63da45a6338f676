"""Which intervals a verifier replays, and what that is worth.

The beacon is public randomness that nobody knew when the run was committed (a later block hash, a drand round); it is
hashed with the commitment, so neither solver nor verifier chooses. The chosen intervals are draws without
replacement:

    seed = keccak(b"gensyn_verify.sample.1" | u32 length of beacon | beacon | run commitment)
    draw j = keccak(seed | j as 8 bytes, big endian) mod intervals        drawn before: skip, go on with j + 1

256 bits taken modulo a number of intervals below 2^40 are even to within 2^-216. Vectors: tests/vectors/sampling.json.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb

from gensyn_verify.commit import keccak256
from gensyn_verify.errors import MalformedError

_DOMAIN = b"gensyn_verify.sample.1"
MAX_BEACON = 1 << 16
SHARES = (Fraction(1, 1000), Fraction(1, 100), Fraction(1, 20), Fraction(1, 10), Fraction(1, 4), Fraction(1, 2))


def draw(beacon: bytes, commitment: bytes, intervals: int, samples: int) -> list[int]:
    """`samples` different intervals out of `intervals`, in ascending order; all of them if there are no more."""
    if len(beacon) > MAX_BEACON:
        raise MalformedError(f"the beacon has {len(beacon)} bytes; the limit is {MAX_BEACON}")
    if samples >= intervals:
        return list(range(intervals))
    seed = keccak256(_DOMAIN + len(beacon).to_bytes(4, "big") + beacon + commitment)
    chosen: set[int] = set()
    j = 0
    while len(chosen) < samples:
        chosen.add(int.from_bytes(keccak256(seed + j.to_bytes(8, "big")), "big") % intervals)
        j += 1
    return sorted(chosen)


def probability_caught(intervals: int, samples: int, forged: int) -> Fraction:
    """That a uniform draw of `samples` of `intervals` meets at least one of `forged`: exact, hypergeometric."""
    samples, forged = min(samples, intervals), min(forged, intervals)
    if samples + forged > intervals:
        return Fraction(1)
    return 1 - Fraction(comb(intervals - forged, samples), comb(intervals, samples))


def detection_table(steps: int, interval: int, samples: int) -> list[tuple[Fraction, int, Fraction]]:
    """Rows (share of steps forged, intervals they lie in, probability that the draw met one).

    A forger who packs forged steps into as few intervals as will hold them is met least often; the rows are for that
    one, so they are lower bounds. The first row is a single forged step.
    """
    intervals = -(-steps // interval)
    rows = []
    for share in (Fraction(1, steps), *(s for s in SHARES if s * steps > 1)):
        forged = ceil(share * steps)
        packed = -(-forged // interval)
        rows.append((share, packed, probability_caught(intervals, samples, packed)))
    return rows
