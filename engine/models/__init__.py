"""Models as the engine runs them: decoders, and the layers and buffers that they are made of."""
