"""Copy values from one model into another."""
