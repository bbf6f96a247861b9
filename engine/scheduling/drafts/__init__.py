"""Steps with drafts, as the scheduler sees them."""
