"""Serves M2IB attributions of CLIP-like models over gRPC."""

import os

# ONNX Runtime reports its use to its maker unless told not to before it is imported. Nothing leaves this machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
