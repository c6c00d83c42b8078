"""Algorithms on operators."""
