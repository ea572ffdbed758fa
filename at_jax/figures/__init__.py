"""Pictures of what networks look at and of how runs went. ``python -m at_jax.figures --help``.

Importing this needs no matplotlib; drawing does.
"""
