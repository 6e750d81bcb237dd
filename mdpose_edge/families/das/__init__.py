"""Distribution-aware single-stage 3-D pose (Wang et al., CVPR 2022): a pelvis with its depth, and joints around it."""
