"""Models as tables."""
