"""Models as the engine runs them: what their layers are, and how they are computed."""
