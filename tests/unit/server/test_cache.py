import torch
from hypothesis import given
from hypothesis import strategies as st

from m2ib_server.engine.cache import CacheKey, FeatureCache
from m2ib_server.package import Role


def key(content, model="0" * 64, layer=1, role=Role.VISION_HEAD):
    return CacheKey(model=model, role=role, layer=layer, content=content)


def test_cache_forgets_the_least_recently_used_beyond_its_bytes():
    cache = FeatureCache(max_bytes=80)
    for content in "ab":
        cache.put(key(content), (torch.zeros(10),))
    assert cache.get(key("a")) is not None
    cache.put(key("c"), (torch.zeros(10),))
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is not None
    assert (len(cache), cache.size_bytes) == (2, 80)


def test_cache_does_not_keep_what_is_larger_than_itself():
    cache = FeatureCache(max_bytes=8)
    cache.put(key("a"), (torch.zeros(10),))
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_cache_keeps_apart_what_differs_in_any_part_of_the_key():
    cache = FeatureCache(max_bytes=1000)
    cache.put(key("a"), (torch.zeros(1),))
    assert cache.get(key("b")) is None
    assert cache.get(key("a", model="1" * 64)) is None
    assert cache.get(key("a", layer=2)) is None
    assert cache.get(key("a", role=Role.VISION_TAIL)) is None


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 60)), max_size=40), st.integers(0, 400))
def test_cache_never_exceeds_its_bytes_and_counts_them_right(puts, max_bytes):
    cache, model = FeatureCache(max_bytes=max_bytes), {}
    for content, size in puts:
        cache.put(key(str(content)), (torch.full((size,), float(content)),))
        model[str(content)] = content
        assert cache.size_bytes <= max_bytes
    kept = {content: cache.get(key(content)) for content in model}
    assert cache.size_bytes == sum(4 * tensors[0].numel() for tensors in kept.values() if tensors)
    for content, tensors in kept.items():
        assert tensors is None or float(tensors[0][0]) == model[content]
