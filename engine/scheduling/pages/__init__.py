"""Pages of the KV cache: pools, page tables, the prefix cache and the copies on the host."""
