"""Everything in a decoder layer but its attention."""
