"""Reads a result that was kept as JSON: what it takes to ask for it again, and what must come out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from m2ib_client._errors import InvalidRequestError, NotFoundError
from m2ib_client._models import Model
from m2ib_client._options import ExplainOptions, Window
from m2ib_client._results import Explanation
from m2ib_client._tensor import FloatArray

ResultSource: TypeAlias = Explanation | Mapping[str, Any] | str
"""A result to verify: an `Explanation`, what its `to_dict` or `to_json` gives, or a line of results.jsonl."""

ALLOWED = "an explanation with its provenance, as `m2ib explain --json` or a line of results.jsonl holds it"
SETTINGS = (
    "effort",
    "beta",
    "text_beta",
    "steps",
    "samples",
    "learning_rate",
    "mask_shape",
    "text_mask_shape",
    "seed",
    "repeats",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """What a kept result says of how it came about, and what came out.

    `options` asks for the same once more, but for the model; `text_sha256` is empty where the result comes from a
    server that did not tell it. `grid_bits`, `token_ids` and `token_bits` are None for a side that was not explained.
    """

    model: str
    version: str
    digest: str
    options: ExplainOptions
    image_sha256: str
    text_sha256: str
    similarity: float
    grid_bits: FloatArray | None
    token_ids: tuple[int, ...] | None
    token_bits: FloatArray | None
    origin: Mapping[str, str]


def read_result(result: ResultSource) -> Recorded:
    """Return what a kept result holds.

    Raises:
        InvalidRequestError: it is no result, one without a side that was explained, or one whose optimisation a
            deadline ended early.
    """
    try:
        held = _held(result)
        if held["partial"]:
            raise InvalidRequestError.of(
                "result",
                seen="a partial explanation, which depends on how much time there was",
                allowed="one whose optimisation ran to its end",
                reason="RESULT_PARTIAL",
            )
        recorded = _read(held)
    except (KeyError, TypeError, ValueError):
        raise InvalidRequestError.of("result", seen="none", allowed=ALLOWED, reason="RESULT_MALFORMED") from None
    if not any(bits is not None and bits.size for bits in (recorded.grid_bits, recorded.token_bits)):
        seen = "no side that was explained, so there is nothing to compare"
        raise InvalidRequestError.of("result", seen=seen, allowed=ALLOWED, reason="RESULT_MALFORMED")
    return recorded


def options_for(recorded: Recorded, models: tuple[Model, ...]) -> ExplainOptions:
    """Return the options that ask a server with these models for the result once more.

    They name the version, for the bare name may lead to another one, or to one that is not loaded.

    Raises:
        NotFoundError: it has not, or another package under the same name; the text says which digest is needed.
    """
    alike = [model for model in models if model.name == recorded.model]
    for model in alike:
        if model.digest == recorded.digest:
            return {**recorded.options, "model": f"{model.name}:{model.version}"}
    there = ", ".join(f"{model.name} version {model.version} with {model.digest}" for model in alike) or "none"
    raise _digest_unknown(recorded, f"of that name the server has: {there}")


def check_package(recorded: Recorded, replayed: Explanation) -> None:
    """Make sure that the package of the kept result answered: it may have been replaced after it was looked up.

    Raises:
        NotFoundError: another one did; the text says which digest is needed.
    """
    now = replayed.provenance
    if now.digest != recorded.digest:
        raise _digest_unknown(recorded, f"now {now.model} version {now.version} with {now.digest} answered")


def origin_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what a result may depend on besides what was asked: the device and the software, by name."""
    return {"device": str(provenance["device"]), **{name: str(it) for name, it in provenance["software"].items()}}


def _digest_unknown(recorded: Recorded, seen: str) -> NotFoundError:
    needed = f"{recorded.model} version {recorded.version} with the digest {recorded.digest}"
    return NotFoundError(f"model: the result needs {needed}; {seen}", allowed=needed, reason="DIGEST_UNKNOWN")


def _held(result: ResultSource) -> Mapping[str, Any]:
    """Return the result as plain values; of a line of results.jsonl its explanation."""
    if isinstance(result, Explanation):
        return result.to_dict()
    held = json.loads(result) if isinstance(result, str) else result
    if not isinstance(held, Mapping):
        raise TypeError("a result is an object")
    return cast("Mapping[str, Any]", held.get("explanation", held))


def _read(held: Mapping[str, Any]) -> Recorded:
    provenance, image, text = held["provenance"], held["image"], held["text"]
    return Recorded(
        model=str(provenance["model"]),
        version=str(provenance["version"]),
        digest=str(provenance["digest"]),
        options=_options(provenance, has_image=image is not None, has_text=text is not None),
        image_sha256=str(provenance["image_sha256"]),
        text_sha256=str(provenance.get("text_sha256", "")),
        similarity=float(held["similarity"]),
        grid_bits=None if image is None else np.asarray(image["grid_bits"], np.float32),
        token_ids=None if text is None else tuple(int(token["token_id"]) for token in text["tokens"]),
        token_bits=None if text is None else np.asarray([token["bits"] for token in text["tokens"]], np.float32),
        origin=origin_of(provenance),
    )


def _options(provenance: Mapping[str, Any], *, has_image: bool, has_text: bool) -> ExplainOptions:
    rendering, length = provenance["rendering"], provenance["text_length"]
    window = rendering["window"] if rendering["window_source"] == "request window" else None
    options = {
        **{name: provenance["settings"][name] for name in SETTINGS},
        "sides": [name for name, is_there in (("image", has_image), ("text", has_text)) if is_there],
        "outputs": (),
        "fit": provenance["fit"],
        "truncate_text": length["tokens_kept"] < length["tokens_given"],
        "frame": rendering["frame"] if rendering["frame"] > 1 else None,
        "window": None if window is None else Window(float(window["centre"]), float(window["width"])),
    }
    return cast(ExplainOptions, options)
