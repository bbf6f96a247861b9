"""Errors about a model; each message is one sentence for the user."""


class ModelError(ValueError):
    """A model cannot be used."""


class UnsupportedModelError(ModelError):
    """The engine cannot run the architecture; raised before any weight is read."""


class CheckpointError(ModelError):
    """Files or tensors of a checkpoint are missing, unexpected, truncated or of the wrong shape."""
