"""The two processes of the server, and what they say to one another."""
