"""Turns text into the model's token ids, and knows where in the caller's text each token stands."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from m2ib_server.errors import InvalidField, TextEmpty, TextTooLong

_FIELD = "text"
_SPECIAL_TOKENS = 2  # start and end


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A half-open range of the caller's text, in Unicode code points."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedText:
    """A text as the model sees it. What would show the text stays out of `repr`.

    text: as the caller wrote it.
    token_ids: start token, the text's own tokens, end token; no padding.
    spans: where each token stands in the text; None for the start and the end token. Tokens that are parts of one
        code point, as those of an emoji or an ideograph can be, share its span.
    tokens_given: the length before truncation, special tokens included.
    """

    text: str = field(repr=False)
    token_ids: tuple[int, ...] = field(repr=False)
    spans: tuple[Span | None, ...] = field(repr=False)
    tokens_given: int

    @property
    def tokens_kept(self) -> int:
        """The length as the model sees it, special tokens included."""
        return len(self.token_ids)

    @property
    def pooled_position(self) -> int:
        """Where the end token stands, at which the model pools."""
        return len(self.token_ids) - 1


class Tokeniser:
    """A model's tokeniser. Encoding changes nothing in it, so threads may share it."""

    def __init__(self, definition: bytes, *, context_length: int, start_token_id: int, end_token_id: int) -> None:
        """Read a tokenizer.json of the Hugging Face tokenizers library; its own padding and truncation are dropped.

        context_length: the longest text, in tokens, special tokens included.

        Raises:
            ValueError: the definition is broken, or does not fit the other three.
        """
        self._tokenizer = _read(definition)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # A caller who types "<|endoftext|>" means these characters: they must not end the text for the model.
        self._tokenizer.encode_special_tokens = True
        if context_length <= _SPECIAL_TOKENS:
            raise ValueError(f"a context of {context_length} tokens leaves no room for a text")
        for token_id in (start_token_id, end_token_id):
            if self._tokenizer.id_to_token(token_id) is None:
                raise ValueError(f"the tokeniser has no token {token_id}")
        self._context_length = context_length
        self._start_token_id = start_token_id
        self._end_token_id = end_token_id

    def encode(self, text: str, *, truncate: bool = False) -> EncodedText:
        """Encode a text, start and end token included.

        truncate: cut what exceeds the context instead of refusing it; the start, the first tokens and the end stay.

        Raises:
            TextEmpty: the text has no token of its own, such as white space.
            TextTooLong: the text exceeds the context and may not be cut.
            InvalidField: the text holds an unpaired surrogate.
        """
        _check_unicode(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        given = len(encoding.ids) + _SPECIAL_TOKENS
        self._check_length(given, truncate=truncate)
        kept = min(given, self._context_length) - _SPECIAL_TOKENS
        spans = written_spans(text, encoding.offsets)[:kept]
        return EncodedText(
            text=text,
            token_ids=(self._start_token_id, *encoding.ids[:kept], self._end_token_id),
            spans=(None, *spans, None),
            tokens_given=given,
        )

    def _check_length(self, given: int, *, truncate: bool) -> None:
        if given == _SPECIAL_TOKENS:
            raise TextEmpty(_FIELD, seen="no token", allowed="at least one token besides start and end")
        if given > self._context_length and not truncate:
            allowed = f"at most {self._context_length} tokens, start and end included"
            raise TextTooLong(_FIELD, seen=f"{given} tokens", allowed=allowed)


def written_spans(text: str, offsets: Sequence[tuple[int, int]]) -> list[Span]:
    """Widen or trim the tokenizer's offsets to what the caller wrote.

    Where normalisation composes code points (e + combining acute), the library's offsets name the first one only:
    code points that no token claims and that are no white space belong to the token before them. White space around
    a token does not belong to it.
    """
    claimed = bytearray(len(text) + 1)
    for start, end in offsets:
        claimed[start:end] = b"\x01" * (end - start)
    return [_span(text, claimed, start, end) for start, end in offsets]


def _span(text: str, claimed: bytearray, start: int, end: int) -> Span:
    while end < len(text) and not claimed[end] and not text[end].isspace():
        end += 1
    while start < end - 1 and text[start].isspace():
        start += 1
    while start < end - 1 and text[end - 1].isspace():
        end -= 1
    return Span(start=start, end=end)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidField(_FIELD, seen="an unpaired surrogate", allowed="valid Unicode text") from None


def _read(definition: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(definition)
    except Exception as cause:  # the library raises bare Exception
        raise ValueError("the tokeniser's definition cannot be read") from cause
