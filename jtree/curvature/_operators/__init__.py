"""Curvature operators."""
