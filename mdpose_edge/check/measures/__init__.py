"""What the gate measures of any model, a measure in each module, with its own limits."""
