"""Owns what stands for an image in the audit log, and for the key behind it."""

import hashlib
import hmac


def image_hash(sha256: str, key: bytes) -> str:
    """Return what stands for an image: HMAC-SHA256 of its SHA-256, in hexadecimal digits.

    Whoever has an image can compute its SHA-256 and would find it in a log; without the key they find nothing.
    """
    return hmac.new(key, bytes.fromhex(sha256), hashlib.sha256).hexdigest()


def key_name(key: bytes) -> str:
    """Return a name for the key, from which it cannot be told, so that a log says under which one it was written."""
    return hmac.new(key, b"m2ib audit key", hashlib.sha256).hexdigest()[:16]
