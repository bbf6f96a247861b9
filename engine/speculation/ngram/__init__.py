"""N-gram drafter: guesses from what followed the same tokens before, without any weights."""
