"""Networks: ONNX Runtime, or any function."""
