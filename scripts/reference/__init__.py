"""Runs lerobot's own PI0 code on a checkpoint and records what it computes."""
