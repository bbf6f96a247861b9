"""Attempts at a problem, the engine and tool behind them, and the vote."""
