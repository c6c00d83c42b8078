"""File formats: one file per format that reads and writes it."""
