"""Restrictions that a kernel process takes on, and facts about processes from /proc."""
