"""Conversion of checkpoints on disk."""
