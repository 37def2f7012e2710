"""Owns the faults an export can have: what was asked for, what was seen and what is allowed."""

from collections.abc import Sequence


class ExportError(Exception):
    """An export that cannot be done; its text is for the person at the terminal."""


class CheckpointInvalid(ExportError):
    """The checkpoint is missing, incomplete or of a kind that no family reads."""

    def __init__(self, part: str, *, seen: str, allowed: str) -> None:
        """Name the part of the checkpoint, what was seen in it and what is allowed."""
        super().__init__(f"checkpoint, {part}: seen {seen}; allowed: {allowed}")


class CheckpointUnreachable(ExportError):
    """The checkpoint is no local directory and cannot be downloaded."""

    def __init__(self, source: str, *, reason: str) -> None:
        """Name the source as it was given and why the download failed."""
        super().__init__(
            f"checkpoint: {source!r} is no directory here and cannot be downloaded ({reason}); "
            "allowed: a checkpoint's directory, a model name of the Hugging Face hub when it is reachable, 'demo'"
        )


class RecipeInvalid(ExportError):
    """A value of the recipe or of the command line is not what is allowed."""

    def __init__(self, field: str, *, seen: str, allowed: str) -> None:
        """Name the field as the recipe spells it, what was seen and what is allowed."""
        super().__init__(f"recipe, {field}: seen {seen}; allowed: {allowed}")


class LayerOutOfRange(ExportError):
    """The bottleneck's layer does not exist, or no block follows it."""

    def __init__(self, encoder: str, *, layer: int, depth: int) -> None:
        """Name the encoder, the layer asked for and the encoder's depth in blocks."""
        allowed = f"0 to {depth - 2}" if depth > 1 else "none, a bottleneck needs a block after it"
        super().__init__(f"{encoder} layer: seen {layer}; allowed with {depth} blocks: {allowed}")


class ReferenceTextsInvalid(ExportError):
    """The reference texts cannot be read or cannot be embedded."""

    def __init__(self, source: str, *, seen: str, allowed: str) -> None:
        """Name the file, what was seen in it and what is allowed."""
        super().__init__(f"reference texts {source}: seen {seen}; allowed: {allowed}")


class OutputExists(ExportError):
    """There is something at the output's place already."""

    def __init__(self, directory: str) -> None:
        """Name the directory."""
        super().__init__(f"output directory: {directory} exists; remove it or replace it with --force")


class OutputInvalid(ExportError):
    """The output directory cannot be made."""

    def __init__(self, directory: str, *, seen: str, allowed: str) -> None:
        """Name the directory, what was seen and what is allowed."""
        super().__init__(f"output directory {directory}: seen {seen}; allowed: {allowed}")


class ParityMissed(ExportError):
    """The exported graphs do not follow the original model closely enough."""

    def __init__(self, missed: Sequence[str]) -> None:
        """List the figures that were missed, each with its name, what was seen and what is allowed."""
        super().__init__(f"parity with the original model missed: {'; '.join(missed)}; nothing was written")
