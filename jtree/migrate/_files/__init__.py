"""Conversion from file to file."""
