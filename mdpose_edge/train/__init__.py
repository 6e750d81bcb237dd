"""Training: the network, its loss, the data and the loop. The only place, with export, that touches torch."""
