"""Text becomes token ids with the caller's own character spans, whatever the caller typed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.tokenisers import END, START, build_tokeniser, id_of
from m2ib_server.errors import InvalidField, TextEmpty, TextTooLong
from m2ib_server.text import Span, Tokeniser

LIBRARY = build_tokeniser()
START_ID, END_ID = id_of(LIBRARY, START), id_of(LIBRARY, END)
CONTEXT = 24


def tokeniser(definition: str | None = None, *, context_length: int = CONTEXT) -> Tokeniser:
    return Tokeniser(
        (definition or LIBRARY.to_str()).encode(),
        context_length=context_length,
        start_token_id=START_ID,
        end_token_id=END_ID,
    )


OURS = tokeniser()
ROOMY = tokeniser(context_length=10_000)


def written(text: str) -> list[str]:
    """What each token's span covers."""
    return [text[span.start : span.end] for span in ROOMY.encode(text).spans if span]


def test_ids_are_framed_by_start_and_end() -> None:
    encoded = OURS.encode("Left lower lobe")
    assert list(encoded.token_ids) == LIBRARY.encode("Left lower lobe").ids
    assert encoded.spans == (None, Span(start=0, end=4), Span(start=5, end=10), Span(start=11, end=15), None)
    assert encoded.tokens_given == encoded.tokens_kept == 5
    assert encoded.pooled_position == 4


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("  Left  LOWER\tlobe\n", ["Left", "LOWER", "lobe"]),
        ("a\u00a0b\u2003c", ["a", "b", "c"]),
        ("lobe, no.", ["lobe", ",", "no", "."]),
        ("é", ["é", "é"]),
        ("e\u0301", ["e\u0301", "e\u0301"]),
        ("xe\u0301 y", ["x", "e\u0301", "e\u0301", "y"]),
        ("한", ["한"] * 3),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"] * 3),
        ("İs", ["İ", "İ", "İ", "s"]),
        ("肺 x", ["肺", "肺", "肺", "x"]),
        ("👍", ["👍"] * 4),
        ("ﬁ", ["ﬁ"] * 3),
        ("\u0301a", ["\u0301", "\u0301", "a"]),
    ],
)
def test_spans_cover_what_the_caller_wrote(text: str, tokens: list[str]) -> None:
    assert written(text) == tokens


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_spans_lie_in_the_text_and_hold_no_white_space_around(text: str) -> None:
    try:
        encoded = ROOMY.encode(text)
    except TextEmpty:
        assert not text.strip()
        return
    spans = [span for span in encoded.spans if span]
    assert len(spans) == encoded.tokens_kept - 2
    for span in spans:
        token = text[span.start : span.end]
        assert 0 <= span.start < span.end <= len(text)
        assert token == token.strip() or len(token) == 1
    covered = {at for span in spans for at in range(span.start, span.end)}
    # Nothing but white space goes unread; the tokeniser holds \x1c to \x1f for none.
    assert all(character.isspace() for at, character in enumerate(text) if at not in covered)


@pytest.mark.parametrize("text", ["", " ", "\t\n \u3000"])
def test_a_text_without_a_token_is_refused(text: str) -> None:
    with pytest.raises(TextEmpty):
        OURS.encode(text)


def test_a_text_may_fill_the_context() -> None:
    assert OURS.encode("no " * (CONTEXT - 2)).tokens_kept == CONTEXT


def test_a_longer_text_is_refused_and_not_repeated() -> None:
    with pytest.raises(TextTooLong) as caught:
        OURS.encode("no " * 30)
    assert caught.value.seen == "32 tokens"
    assert caught.value.allowed.startswith("at most 24 tokens")
    assert "no no" not in str(caught.value)


def test_truncation_keeps_the_start_the_first_tokens_and_the_end() -> None:
    text = "left " * 10 + "lobe " * 20
    encoded = OURS.encode(text, truncate=True)
    assert encoded.tokens_given == 32
    assert encoded.tokens_kept == CONTEXT
    assert encoded.token_ids[0] == START_ID
    assert encoded.token_ids[-1] == END_ID
    assert encoded.token_ids[1:-1] == ROOMY.encode(text).token_ids[1 : CONTEXT - 1]
    assert len(encoded.spans) == CONTEXT


def test_a_short_text_is_not_truncated() -> None:
    assert OURS.encode("left lobe", truncate=True) == OURS.encode("left lobe")


@pytest.mark.parametrize("typed", [END, START, f"{END}{END}", END.upper()])
def test_special_tokens_that_are_typed_stay_text(typed: str) -> None:
    encoded = ROOMY.encode(f"a {typed} b")
    own = encoded.token_ids[1:-1]
    assert START_ID not in own
    assert END_ID not in own
    assert encoded.pooled_position == len(encoded.token_ids) - 1
    assert "".join(dict.fromkeys(written(f"a {typed} b"))).startswith("a<|")


def test_an_unpaired_surrogate_is_refused() -> None:
    with pytest.raises(InvalidField, match="surrogate"):
        OURS.encode("a\ud800b")


def test_the_text_stays_out_of_repr() -> None:
    assert "canary" not in repr(OURS.encode("canary"))


def test_the_definitions_own_truncation_and_padding_are_dropped() -> None:
    changed = build_tokeniser()
    changed.enable_truncation(4)
    changed.enable_padding(length=50)
    assert tokeniser(changed.to_str()).encode("left lower lobe no") == OURS.encode("left lower lobe no")


def test_threads_may_share_a_tokeniser() -> None:
    texts = [f"left {'lobe ' * (number % 15)}opacity" for number in range(200)]
    expected = [OURS.encode(text, truncate=True) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: OURS.encode(text, truncate=True), texts)) == expected


def test_a_broken_definition_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        tokeniser("{}")


@pytest.mark.parametrize("context_length", [0, 2])
def test_a_context_without_room_is_refused(context_length: int) -> None:
    with pytest.raises(ValueError, match="no room"):
        tokeniser(context_length=context_length)


def test_tokens_that_the_definition_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="no token 99999"):
        Tokeniser(LIBRARY.to_str().encode(), context_length=9, start_token_id=99_999, end_token_id=END_ID)
