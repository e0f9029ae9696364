"""Turn a trained checkpoint into an ONNX file that describes itself, and prove that it computes the same."""
