"""The edge: from air to alert. NumPy for mathematics; never torch, onnx or scipy, never the trainer or the exporter."""

import os

# onnxruntime 1.29 and later collects telemetry on Linux unless this is set before it is imported: it writes a device's number and a
# database into the user's cache, and sends what models are opened. A box that listens in a factory tells nobody but its broker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
