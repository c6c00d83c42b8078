"""Training loops, triggers and throttled functions."""
