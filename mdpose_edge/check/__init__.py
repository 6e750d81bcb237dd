"""The gate: is a candidate artifact still the model that the reference is? numpy only, so that devices can ask."""
