"""Rules that rewrite arrays by path, and their application."""
