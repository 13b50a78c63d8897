"""Scenes in, images out: light, materials, meshes, and the phantom."""
