"""Values from one model into another."""
