"""Networks: ONNX Runtime, OpenVINO, or any function."""
