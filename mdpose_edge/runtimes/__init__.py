"""Inference engines behind one small protocol (base.py); registry.py knows their names."""
