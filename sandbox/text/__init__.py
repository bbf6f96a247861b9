"""The text of a cell, as a model reads it."""
