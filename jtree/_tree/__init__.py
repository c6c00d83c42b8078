"""Trees as flat lists of slots, and the way back."""
