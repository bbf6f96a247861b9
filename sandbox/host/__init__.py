"""Code that runs in the solver's process: the pool, its leases and its limits."""
