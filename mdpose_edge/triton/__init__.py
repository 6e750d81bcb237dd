"""NVIDIA Triton Inference Server: a bundle becomes a model repository; docs/triton.md."""
