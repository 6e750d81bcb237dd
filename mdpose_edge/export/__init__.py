"""Checkpoint to graph: ONNX and OpenVINO, each compared with torch before it exists."""
