"""Turns a lerobot PI0 checkpoint into a pi0-edge bundle, without torch and without lerobot."""

__version__ = "0.1.0"
