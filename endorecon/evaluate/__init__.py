"""How good a reconstruction is, against the truth: depth, trajectory, surface."""
