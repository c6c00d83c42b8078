"""Framework layouts: how each framework stores the arrays of each kind of layer."""
