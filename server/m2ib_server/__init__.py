"""Serves M2IB attributions of CLIP-like models over gRPC."""

__version__ = "0.1.0"
