"""What can be wrong with a model, told in one sentence each."""


class ModelError(ValueError):
    """A model folder cannot be used; the message is one sentence for the user."""


class UnsupportedModelError(ModelError):
    """The architecture cannot be paged; raised before any weight is read."""


class CheckpointError(ModelError):
    """Files or tensors are missing, surplus, truncated or of the wrong shape."""
