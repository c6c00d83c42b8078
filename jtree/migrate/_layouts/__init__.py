"""Framework layouts: how each framework stores each kind of layer."""
