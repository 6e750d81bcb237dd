"""Latency and throughput of artifacts: stage by stage, in turns where two are compared, beside the machine's state."""
