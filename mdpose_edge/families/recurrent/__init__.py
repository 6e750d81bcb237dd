"""One person at a time: a recurrent decoder gives a person's heat maps at each step, and says when it has all."""
