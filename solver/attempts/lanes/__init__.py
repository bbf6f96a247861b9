"""The attempts at a problem by the engine that runs them."""
