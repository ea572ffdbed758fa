"""Image files.

- Decoding to upright RGB: ``reading``, ``upright_rgb``, ``png``, ``formats``.
- Files of a folder, and their checks before training: ``listing``, ``inspection``, ``verified``.
- Photographs that are in no data set: ``photographs``.
"""
