"""One caller's limits: they hold over all that it has under way, and no other caller feels them."""

from contextlib import ExitStack

import pytest

from m2ib_server.api.intake import Intake
from m2ib_server.api.uploads import UploadStore
from m2ib_server.errors import CallerFull, ServerFull, UploadStoreFull


class Film:
    def __init__(self, size_bytes):
        self.size_bytes = size_bytes


def intake(**limits):
    return Intake(**{"max_requests": 9, "max_bytes": 1000, "max_caller_requests": 2, "max_caller_bytes": 100, **limits})


def test_a_caller_at_its_limit_of_requests_is_refused_and_another_is_not():
    places = intake()
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.place(1, "one"))
        with pytest.raises(CallerFull, match="2 of its 2 requests"), places.place(1, "one"):
            pass
        held.enter_context(places.place(1, "two"))
        assert places.requests == 3
    with places.place(1, "one"):
        assert places.requests == 1


def test_a_caller_at_its_limit_of_bytes_is_refused_and_another_is_not():
    places = intake(max_bytes=5000)
    with places.place(60, "one") as first:
        with pytest.raises(CallerFull, match="60 of its 100 bytes"), places.place(41, "one"):
            pass
        with places.place(90, "two") as other, places.place(30, "one"):
            with pytest.raises(CallerFull, match="90 of its 100 bytes"):
                first.grow(11)
            first.grow(10)
            other.grow(1000)  # of its caller's, it is the only one
            assert places.used_bytes == 60 + 90 + 30 + 10 + 1000


def test_a_refusal_takes_nothing_from_anybody():
    places = intake(max_bytes=150)
    with places.place(60, "one") as first:
        with places.place(80, "two"):
            with pytest.raises(ServerFull):
                first.grow(20)
            with pytest.raises(ServerFull):
                first.share(Film(20))
            with pytest.raises(CallerFull), places.place(41, "one"):
                pass
            assert (places.used_bytes, places.callers["one"].used_bytes) == (140, 60)
        assert places.used_bytes == 60
    assert (places.requests, places.used_bytes, places.callers) == (0, 0, {})


def test_an_image_that_callers_share_counts_once_for_all_and_once_for_each():
    places, film = intake(), Film(60)
    with places.place(10, "one") as first, places.place(10, "one") as second:
        first.share(film)
        second.share(film)
        with places.place(10, "two") as other:
            other.share(film)
            assert places.used_bytes == 90
            assert (places.callers["one"].used_bytes, places.callers["two"].used_bytes) == (80, 70)
            with pytest.raises(CallerFull, match="80 of its 100 bytes"):
                second.share(Film(30))
        assert (places.used_bytes, places.callers["one"].used_bytes) == (80, 80)
    assert (places.used_bytes, len(places.everybody.holders), places.callers) == (0, 0, {})


def test_callers_without_a_name_are_bounded_together_alone():
    places = intake()
    with ExitStack() as held:
        for _ in range(9):
            held.enter_context(places.place(100))
        with pytest.raises(ServerFull, match="9 of 9 requests"), places.place(1):
            pass
        assert places.callers == {}


def test_an_upload_on_its_way_is_one_of_its_caller_s_requests_and_of_nobody_else_s():
    places = intake(max_requests=2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(places.upload("one"))
        with pytest.raises(CallerFull), places.upload("one"):
            pass
        with pytest.raises(CallerFull), places.place(1, "one"):
            pass
        with places.upload(""), places.place(1, "two"):
            assert places.requests == 1
    assert places.callers == {}


async def test_kept_uploads_are_on_their_caller_s_share_until_they_are_forgotten():
    store = UploadStore(max_bytes=50_000, max_caller_bytes=10_000, seconds_to_live=60)
    store.reserve(6000, "one")
    store.keep(bytes(6000), "one")
    with pytest.raises(CallerFull, match="6000 of its 10000 bytes of uploads"):
        store.reserve(5000, "one")
    store.reserve(5000, "two")
    store.release(5000, "two")
    store.reserve(40_000)  # nobody in particular
    with pytest.raises(UploadStoreFull):
        store.reserve(6000, "two")
    store.release(40_000)
    store.close()
    assert (store.size_bytes, dict(store.caller_bytes)) == (0, {})
