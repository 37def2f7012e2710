"""Turns CLIP-like checkpoints into model packages of ONNX graphs."""

__version__ = "0.1.0"
