"""Stand-ins for parts of transformers' models, which compute the same with fused kernels."""
