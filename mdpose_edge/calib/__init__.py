"""Calibration sets: the images that INT8 ranges are measured on, as a folder that travels."""
