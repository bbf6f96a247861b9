"""What a kernel process gives up, and what /proc tells of processes."""
