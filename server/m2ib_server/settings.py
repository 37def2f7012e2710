"""Owns what an operator may set, with its defaults and units. Nothing else reads the environment."""

from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20
MAX_BETA = 100.0  # these two bounds of m2ib.v1.Settings are the contract's, not the operator's
MAX_LEARNING_RATE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The bounds that a request must keep.

    Attributes:
        max_steps: optimisation steps.
        max_samples: noise rows per step.
        max_image_bytes: an encoded image's size, in bytes.
        max_image_pixels: pixels of one frame.
        max_score_images: images in a ScoreRequest.
        max_score_texts: texts in a ScoreRequest.
        max_text_characters: a text's length, in Unicode code points.
    """

    max_steps: int = 1000
    max_samples: int = 256
    max_image_bytes: int = 48 * MEBIBYTE
    max_image_pixels: int = 40_000_000
    max_score_images: int = 64
    max_score_texts: int = 1024
    max_text_characters: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The bounds that the engine keeps.

    Attributes:
        max_waiting: jobs that may wait; one more is refused.
        max_running: jobs that advance together.
        max_rows: rows in one evaluation of a graph.
        cache_bytes: memory for head features and target embeddings, in bytes.
    """

    max_waiting: int = 256
    max_running: int = 1
    max_rows: int = 256
    cache_bytes: int = 256 * MEBIBYTE


DEFAULT_REQUESTS = RequestLimits()
DEFAULT_ENGINE = EngineLimits()
DEFAULT_MESSAGE_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Everything an operator may set.

    Attributes:
        models: the folder with the model packages.
        listen: "host:port"; port 0 takes a free one.
        device: "cpu", "cuda" or "tensorrt".
        threads: compute threads, at least 1.
        reflection: whether the server describes its services to whoever asks.
        grace_seconds: how long running requests may take to finish after SIGTERM.
        max_message_bytes: the largest gRPC message in either direction, in bytes.
        ready_file: written with "host:port" once the server is ready; None writes nothing.
        exit_with_stdin: whether the end of standard input ends the server, as SIGTERM does.
        requests: the bounds of a request.
        engine: the bounds of the engine.
    """

    models: Path
    listen: str
    device: str
    threads: int
    reflection: bool = False
    grace_seconds: float = 30.0
    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    ready_file: Path | None = None
    exit_with_stdin: bool = False
    requests: RequestLimits = DEFAULT_REQUESTS
    engine: EngineLimits = DEFAULT_ENGINE
