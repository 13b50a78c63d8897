"""A better surface from the endoscope's own light: what many views of each place tell of its position and its slope."""
