"""Every operator against its float64 definition in `sdk/ops/reference.py`."""
