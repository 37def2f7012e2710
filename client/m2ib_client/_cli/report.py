"""Words the answers for a reader at a terminal; legible without colours too. Asks no server and writes no file."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich.text import Text

from m2ib_client._models import EffortDefaults, MaskDefaults, Model
from m2ib_client._results import Explanation, ImageAttribution, Provenance, ReferenceRank, Scores, Settings, Word

POOR_RANK_FRACTION = 0.25
BAR_LENGTH = 20
PALE = (255, 255, 255)
STRONG = (255, 140, 0)


def explanation_lines(explanation: Explanation, text: str) -> Iterator[Text]:
    """Yield the report of an explanation of that text."""
    yield Text(_origin(explanation.provenance))
    yield Text(f"similarity {explanation.similarity:.3f}, {_rank(explanation.reference_rank)}")
    if explanation.partial:
        yield Text(_partial_warning(explanation), style="bold yellow")
    if explanation.provenance.settings.repeats > 1:
        yield Text(_stability(explanation))
    if is_poor(explanation.reference_rank):
        yield Text(_rank_warning(explanation.reference_rank), style="bold yellow")
    if explanation.provenance.text_length.truncated:
        yield Text(_truncation_warning(explanation.provenance), style="bold yellow")
    if explanation.words:
        yield Text()
        yield coloured(text, explanation.words)
        yield from word_lines(explanation.words)
    if explanation.image is not None:
        yield Text()
        yield Text(_strongest_patch(explanation.image))
    yield Text(f"computed in {explanation.timings.total_seconds:.2f} s")


def is_poor(rank: ReferenceRank) -> bool:
    """Tell whether so many reference texts match better that this text may not fit the image."""
    return rank.better_fraction > POOR_RANK_FRACTION


def coloured(text: str, words: Sequence[Word]) -> Text:
    """Return the text with each word on a background that grows stronger with its share."""
    line = Text(text)
    for word in words:
        line.stylize(f"black on rgb({','.join(map(str, shade(word.normalised)))})", *word.span)
    return line


def shade(share: float) -> tuple[int, int, int]:
    """Return the colour between pale and strong for a share in [0, 1]."""
    red, green, blue = (round(pale + (strong - pale) * share) for pale, strong in zip(PALE, STRONG, strict=True))
    return red, green, blue


def word_lines(words: Sequence[Word]) -> Iterator[Text]:
    """Yield a line per word: the word, its bits and a bar."""
    width = max(len(word.text) for word in words)
    for word in words:
        bar = "#" * round(word.normalised * BAR_LENGTH)
        yield Text(f"  {word.text:<{width}}  {word.bits:8.3f} bits  {bar}".rstrip())


def score_lines(scores: Scores, images: Sequence[str], texts: Sequence[str]) -> Iterator[Text]:
    """Yield the scores, image by image, the texts in the order given."""
    yield Text(f"cosine similarities by {scores.model} {scores.version}")
    for image, row in zip(images, scores.matrix, strict=True):
        yield Text(image, style="bold")
        for text, similarity in zip(texts, row, strict=True):
            yield Text(f"  {similarity:7.4f}  {text}")


def model_lines(model: Model) -> Iterator[Text]:
    """Yield the description of a model."""
    vision, limits, default = model.vision, model.limits, model.defaults
    yield Text(f"{model.name} {model.version}", style="bold")
    yield Text(f"  family {model.family}, {model.precision}, digest {model.digest}")
    yield Text(
        f"  image {vision.image_size} x {vision.image_size}, patches {vision.grid_rows} x {vision.grid_columns}, "
        f"fit {model.default_fit}; text up to {model.text.context_length} tokens"
    )
    yield Text(
        f"  bottleneck after image layer {vision.layer} of {vision.depth} and text layer "
        f"{model.text.layer} of {model.text.depth}, counted from 0"
    )
    yield Text(f"  {model.references} reference texts")
    for name, effort in default.efforts.items():
        yield Text(f"  effort {name}: {_effort(effort)}")
    yield Text(f"  defaults with mask channel: {_defaults(default.channel)}")
    yield Text(f"  defaults with mask token: {_defaults(default.token)}")
    yield Text(
        f"  at most {limits.max_steps} steps, {limits.max_samples} samples, {limits.max_repeats} repeats, "
        f"{limits.max_image_bytes} bytes"
    )


def _effort(effort: EffortDefaults) -> str:
    return f"{_mask(effort)}, {_defaults(effort.settings)}, {_repeats(effort.repeats)}"


def _mask(told: EffortDefaults | Settings) -> str:
    """Name the mask's shape; the text side's beside it where it is another one."""
    own = "" if told.text_mask_shape == told.mask_shape else f" (text {told.text_mask_shape})"
    return f"mask {told.mask_shape}{own}"


def _repeats(repeats: int) -> str:
    return "1 repeat" if repeats == 1 else f"{repeats} repeats"


def _defaults(defaults: MaskDefaults) -> str:
    return (
        f"beta {defaults.beta:g} (text {defaults.text_beta:g}), {defaults.steps} steps, {defaults.samples} samples, "
        f"learning rate {defaults.learning_rate:g}"
    )


def _origin(provenance: Provenance) -> str:
    settings = provenance.settings
    return (
        f"{provenance.model} {provenance.version} on {provenance.device}: {provenance.method}, "
        f"effort {settings.effort}, {_mask(settings)}, beta {settings.beta:g} "
        f"(text {settings.text_beta:g}), {settings.steps} steps, {settings.samples} samples, "
        f"learning rate {settings.learning_rate:g}, seed {settings.seed}"
    )


def _partial_warning(explanation: Explanation) -> str:
    """Say how far each side came before the deadline."""
    asked = explanation.provenance.settings.steps
    sides = {"image": explanation.image, "text": explanation.text}
    done = [f"{name} {len(side.trace)} of {asked} steps" for name, side in sides.items() if side is not None]
    return f"warning: the deadline ended this early, the map is the best so far: {', '.join(done) or 'no step done'}"


def _stability(explanation: Explanation) -> str:
    """Say how alike the repeats are: rank correlations, where 1 means that they agree."""
    sides = {"image": explanation.image, "text": explanation.text}
    told = [
        f"{name} {side.stability:.2f}"
        for name, side in sides.items()
        if side is not None and side.stability is not None
    ]
    repeats = explanation.provenance.settings.repeats
    return f"mean of {repeats} repeats; stability (rank correlation between them, at most 1): {', '.join(told)}"


def _rank(rank: ReferenceRank) -> str:
    if not rank.references:
        return "the model has no reference texts to rank it among"
    return f"{rank.rank - 1} of {rank.references} reference texts match this image better"


def _rank_warning(rank: ReferenceRank) -> str:
    return (
        f"warning: {rank.better_fraction:.0%} of the reference texts match this image better: the text may "
        "not fit the image, and the explanation may be of a wrong text"
    )


def _truncation_warning(provenance: Provenance) -> str:
    length = provenance.text_length
    return f"warning: the text was cut, {length.tokens_kept} of its {length.tokens_given} tokens were kept"


def _strongest_patch(image: ImageAttribution) -> str:
    rows, columns = image.grid_bits.shape
    row, column = (int(index) for index in np.unravel_index(image.grid_bits.argmax(), image.grid_bits.shape))
    x, y = image.grid_to_original.apply(column + 0.5, row + 0.5)
    return (
        f"image: {float(image.grid_bits.sum()):.2f} bits over {rows} x {columns} patches; the brightest one, "
        f"{float(image.grid_bits[row, column]):.2f} bits, around pixel ({x:.0f}, {y:.0f}) of "
        f"{image.original_size.width} x {image.original_size.height}"
    )
