"""Files on disk: staging, atomic replacement, memory."""
