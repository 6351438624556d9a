"""The mask heads against the baseline on `scenes`: same detector, same boxes, same budget. ``docs/accuracy.md`` is made here."""
