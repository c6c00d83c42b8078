"""Files on disk: paths, atomic replacement, staged arrays, memory."""
