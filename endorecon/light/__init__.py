"""The endoscope's light, its camera's response and the tissue's material, estimated from a run."""
