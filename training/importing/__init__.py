"""Public checkpoints of other projects, read and renamed: ``python -m training.import_checkpoint`` (``docs/checkpoints.md``)."""
