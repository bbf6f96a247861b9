"""Mixtures of experts: routing, grouping rows by expert, and the experts' linear layers."""
