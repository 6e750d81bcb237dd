"""Heat-map-guided adaptive keypoints: offsets say which peaks of the heat maps are one person's."""
