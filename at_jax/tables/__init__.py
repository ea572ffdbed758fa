"""The paper's tables: rows, seeds and medians, next to the numbers that the paper reports.

``python -m at_jax.tables NAME`` trains a table. Run it in the top-level folder of the repository, which
holds the table configs.
"""

__all__: list[str] = []
