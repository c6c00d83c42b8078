"""Rules: plain data applied to paths and lazy arrays."""
