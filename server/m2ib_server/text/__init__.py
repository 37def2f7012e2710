"""Turns text into token ids with character spans, and information per token into scores over the caller's text."""

from .scores import TextScores, TokenScore, WordScore, score_text
from .tokeniser import EncodedText, Span, Tokeniser

__all__ = ["EncodedText", "Span", "TextScores", "TokenScore", "Tokeniser", "WordScore", "score_text"]
