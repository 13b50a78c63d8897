"""A plugin of nerfstudio: `ns-train endorecon-splats --data RUN`, where RUN is a run folder or an export of one.

Method and data parser are found by entry points (pyproject.toml); they are in modules of their own, since nerfstudio
imports the parsers while it is being imported itself. Nothing else of the package imports this folder, or nerfstudio.
"""
