"""One module for each target of an export: it writes the files that the target's engine opens."""
