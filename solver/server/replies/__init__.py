"""What a model writes, read as text, thoughts and calls while it grows."""
