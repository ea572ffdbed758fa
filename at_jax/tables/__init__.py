"""The paper's tables, trained again: rows, seeds, medians, and the paper's figure beside ours.

``python -m at_jax.tables NAME`` runs one, from the repository's folder.
"""
