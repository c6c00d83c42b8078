"""Walk pytrees: list their leaves with paths, and rebuild them."""
