"""What jtree costs, as ratios against the alternatives, measured in the same run."""
