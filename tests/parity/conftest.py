from tests.trained import ellipses, tiny_checkpoint, tiny_model

__all__ = ["ellipses", "tiny_checkpoint", "tiny_model"]
