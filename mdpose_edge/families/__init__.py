"""The model families: a folder each, with the numpy half that a device reads and the torch half that trains it."""
