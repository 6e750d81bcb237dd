"""Facts of the machine that a figure was measured on; one that cannot be read says so instead of being left out."""
