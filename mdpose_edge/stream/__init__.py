"""Frames in, poses out, without a pause: sources, the pipeline whose stages overlap, and sinks."""
