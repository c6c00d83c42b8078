"""Conversion of whole models by the types of their layers."""
