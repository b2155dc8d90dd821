"""A stored network as an ONNX graph."""
