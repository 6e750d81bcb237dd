"""The authors' own weights: published checkpoints of other codes become checkpoints of this package."""
