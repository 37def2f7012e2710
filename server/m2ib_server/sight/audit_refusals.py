"""Says which refusals of unknown callers have a record of their own, lest who knocks fill the disk. No I/O."""

from dataclasses import dataclass

PER_SECOND = 10  # half a gigabyte of records a day
BURST = 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: how many tokens it held, and when, in seconds on the monotonic clock."""

    tokens: float
    at: float


FULL = Bucket(tokens=BURST, at=0.0)


def take(bucket: Bucket, now: float) -> Bucket | None:
    """Return the bucket with one token less; None where it has none, and then it stays as it is."""
    tokens = min(BURST, bucket.tokens + PER_SECOND * (now - bucket.at))
    return Bucket(tokens - 1, now) if tokens >= 1 else None
