"""Annotated people from elsewhere: which files, whose format, which keypoints, and what is wrong with them."""
