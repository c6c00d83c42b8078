"""Models as one vector, and back."""
