"""The edge: from air to alert. NumPy for mathematics; never torch, onnx or scipy, never the trainer or the exporter."""
