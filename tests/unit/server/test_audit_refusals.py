from hypothesis import given
from hypothesis import strategies as st

from m2ib_server.sight.audit_refusals import BURST, FULL, PER_SECOND, Bucket, take

ASKING = st.lists(st.floats(0, 30, allow_nan=False), max_size=400).map(sorted)


def taken(times, bucket=FULL) -> list[float]:
    """Return the times at which there was a token."""
    found = []
    for now in times:
        if (left := take(bucket, now)) is not None:
            bucket = left
            found.append(now)
    return found


def test_a_full_bucket_has_a_burst_of_tokens_and_then_none():
    assert len(taken([0.0] * 3 * BURST)) == BURST


def test_an_empty_bucket_has_a_token_again_as_soon_as_one_has_come_in():
    empty = Bucket(tokens=0.0, at=5.0)
    assert take(empty, 5.0 + 0.9 / PER_SECOND) is None
    assert take(empty, 5.0 + 1.1 / PER_SECOND) is not None


def test_a_bucket_that_was_left_for_long_has_no_more_than_a_burst():
    assert len(taken([1e6] * 3 * BURST)) == BURST


@given(times=ASKING)
def test_over_any_time_there_are_no_more_tokens_than_the_burst_and_the_rate_give(times):
    found = taken(times)
    for first, began in enumerate(found):
        for last, ended in enumerate(found[first:], start=first):
            assert last - first + 1 <= BURST + PER_SECOND * (ended - began) + 1e-6


@given(times=ASKING)
def test_who_asks_no_faster_than_the_rate_always_has_a_token(times):
    slow = [now for place, now in enumerate(times) if not place or now - times[place - 1] >= 1 / PER_SECOND]
    assert taken(slow, Bucket(tokens=1.0, at=0.0)) == slow
