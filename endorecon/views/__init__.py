"""Views of a reconstruction: they watch, and change nothing. One file a view."""
