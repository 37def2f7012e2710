"""Builds a small tokeniser in CLIP's form: byte-level, lower-casing, composing, with a start and an end token."""

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

START, END = "<|startoftext|>", "<|endoftext|>"
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
WORDS = [[*"lef", "t</w>"], [*"lowe", "r</w>"], [*"lob", "e</w>"], [*"opac"], ["n", "o</w>"]]


def build_tokeniser() -> Tokenizer:
    """A tokeniser that knows every byte and a few words."""
    tokeniser = Tokenizer(_model())
    tokeniser.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    tokeniser.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokeniser.add_special_tokens([AddedToken(START, normalized=False), AddedToken(END, normalized=False)])
    start, end = id_of(tokeniser, START), id_of(tokeniser, END)
    tokeniser.post_processor = processors.RobertaProcessing((END, end), (START, start), False, False)
    return tokeniser


def id_of(tokeniser: Tokenizer, token: str) -> int:
    """The id of a token that the tokeniser has."""
    token_id = tokeniser.token_to_id(token)
    if token_id is None:
        raise KeyError(token)
    return int(token_id)


def _model() -> BPE:
    """Every byte, inside and at the end of a word, and the merges of a few words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{character}</w>" for character in alphabet)]
    merges: list[tuple[str, str]] = []
    for first, *rest in WORDS:
        for piece in rest:
            merges.append((first, piece))
            first += piece  # noqa: PLW2901 - grows from piece to piece
            pieces.append(first)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return BPE(
        vocabulary,
        list(dict.fromkeys(merges)),
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        unk_token=END,
    )
