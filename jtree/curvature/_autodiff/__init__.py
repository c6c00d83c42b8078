"""Derivatives of a loss: calls, linearization, dense matrices."""
