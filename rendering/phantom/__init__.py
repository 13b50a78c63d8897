"""Procedural anatomy and the clips rendered from it, with exact ground truth."""
