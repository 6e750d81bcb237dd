"""NVDLA, the Deep Learning Accelerator beside the GPU of some Jetsons: what it would run, and its INT8 scales.

The backbone DLA-34 (Deep Layer Aggregation) is another thing by that name; docs/nvdla.md.
"""
