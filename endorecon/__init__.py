"""From an endoscopic video to a 3D scene."""

__version__ = "0.1.0"
