"""Checkpoints with seeded random weights, written the way lerobot saves trained ones.

They stand in for real checkpoints in tests and benchmarks. Nothing here is shared with the code that reads checkpoints,
so that a name spelt wrongly on one side is noticed by the other.
"""
