"""Tokens group into the words a reader sees, and no information is lost or counted twice."""

import math

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fakes.tokenisers import END, START, build_tokeniser, id_of
from m2ib_server.errors import TextEmpty
from m2ib_server.text import EncodedText, Tokeniser, score_text
from m2ib_server.text.words import group_words

LIBRARY = build_tokeniser()
TOKENISER = Tokeniser(
    LIBRARY.to_str().encode(),
    context_length=77,
    start_token_id=id_of(LIBRARY, START),
    end_token_id=id_of(LIBRARY, END),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.lists(
    st.sampled_from(["Left", "opacity,", "(x-ray)", "3.5", "don't", "e\u0301", "👍🏽", "  ", "肺炎"]), min_size=1
).map(" ".join)


def words(text: str) -> list[str]:
    return [word.text for word in group_words(TOKENISER.encode(text, truncate=True))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left lower lobe", ["Left", "lower", "lobe"]),
        ("opacity, no effusion.", ["opacity", ",", "no", "effusion", "."]),
        ("(x-ray)", ["(", "x-ray", ")"]),
        ("3.5 cm", ["3.5", "cm"]),
        ("don't patient's", ["don't", "patient's"]),
        ("left-sided/basal", ["left-sided/basal"]),
        ("<5%!", ["<", "5", "%!"]),
        ("...", ["..."]),
        ("-- lobe --", ["--", "lobe", "--"]),
        ("  Œdème  du\tpoumon ", ["Œdème", "du", "poumon"]),
        ("e\u0301de\u0300me.", ["e\u0301de\u0300me", "."]),
        ("肺炎。", ["肺炎", "。"]),
        ("ok👍🏽", ["ok", "👍🏽"]),
        ("क्ष", ["क्ष"]),
    ],
)
def test_words_are_those_a_reader_sees(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXTS)
def test_every_token_belongs_to_one_word(text: str) -> None:
    encoded = _encoded(text)
    positions = [position for word in group_words(encoded) for position in word.positions]
    assert positions == list(range(1, encoded.tokens_kept - 1))
    for word in group_words(encoded):
        assert word.text == text[word.span.start : word.span.end]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(TEXTS, st.lists(st.floats(0, 1e4), min_size=77, max_size=77))
def test_words_hold_the_information_of_their_tokens(text: str, bits: list[float]) -> None:
    encoded = _encoded(text)
    scores = score_text(encoded, bits[: encoded.tokens_kept])
    own = math.fsum(token.bits for token in scores.tokens if not token.special)
    assert math.fsum(word.bits for word in scores.words) == pytest.approx(own)
    for entries in ([token for token in scores.tokens if not token.special], scores.words):
        normalised = [entry.normalised for entry in entries]
        assert min(normalised) == 0
        assert max(normalised) in (0, 1)
        assert (max(normalised) == 1) == (len({entry.bits for entry in entries}) > 1)


def test_special_tokens_count_in_no_normalisation() -> None:
    scores = score_text(TOKENISER.encode("left lower lobe"), [100, 1, 2, 3, 50])
    assert [token.normalised for token in scores.tokens] == [0, 0, 0.5, 1, 0]
    assert [token.special for token in scores.tokens] == [True, False, False, False, True]
    assert [token.text for token in scores.tokens] == ["", "left", "lower", "lobe", ""]
    assert [token.bits for token in scores.tokens] == [100, 1, 2, 3, 50]
    assert scores.tokens[0].span is None
    assert scores.tokens[0].token_id == id_of(LIBRARY, START)
    assert [word.normalised for word in scores.words] == [0, 0.5, 1]


def test_a_word_sums_its_tokens() -> None:
    encoded = TOKENISER.encode("opacity no")  # opac + i + t + y, no
    scores = score_text(encoded, [9, 1, 2, 3, 4, 5, 9])
    assert [(word.text, word.bits, word.normalised) for word in scores.words] == [("opacity", 10, 1), ("no", 5, 0)]


def test_equal_scores_normalise_to_zero() -> None:
    scores = score_text(TOKENISER.encode("left lobe"), [2, 2, 2, 2])
    assert not any(token.normalised for token in scores.tokens)
    assert not any(word.normalised for word in scores.words)


def test_a_word_that_was_cut_keeps_what_is_left() -> None:
    short = Tokeniser(
        LIBRARY.to_str().encode(),
        context_length=4,
        start_token_id=id_of(LIBRARY, START),
        end_token_id=id_of(LIBRARY, END),
    )
    scores = score_text(short.encode("left opacity", truncate=True), [0, 1, 2, 0])
    assert [word.text for word in scores.words] == ["left", "opac"]


@pytest.mark.parametrize("bits", [[1.0], [0, -1, 0], [0, math.nan, 0], [0, math.inf, 0]])
def test_information_that_cannot_be_is_a_fault(bits: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values for|finite"):
        score_text(TOKENISER.encode("left"), bits)


def test_scores_keep_the_text_out_of_repr() -> None:
    assert "left" not in repr(score_text(TOKENISER.encode("left"), [0, 1, 0]))


def _encoded(text: str) -> EncodedText:
    try:
        return TOKENISER.encode(text, truncate=True)
    except TextEmpty:
        assume(condition=False)
        raise
