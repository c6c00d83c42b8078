"""Flatten models into one vector and back."""
