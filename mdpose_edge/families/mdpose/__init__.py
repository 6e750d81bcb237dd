"""MDPose: a mixture of whole poses, one component per cell (Seo et al., UAI 2023)."""
