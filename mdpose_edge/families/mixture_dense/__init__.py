"""Mixture dense regression: at each centre, M alternative poses with weights and Gaussian spreads."""
