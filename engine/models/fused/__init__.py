"""One decoder of fused kernels for all families of models that its table describes."""
