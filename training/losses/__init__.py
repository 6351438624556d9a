"""Losses that more than one part of the model may use; each module names its paper."""
