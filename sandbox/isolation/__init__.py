"""What a kernel gives up, and what /proc says of it."""
