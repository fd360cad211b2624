"""Faults on purpose, while changes flow: how long the platform was without, and that nothing was lost."""
