"""The paper's tables: rows, seeds and medians, next to the numbers that the paper reports.

``python -m at_jax.tables NAME`` trains a table, in any folder. In the top-level folder of the repository it
extends the committed tables in ``results/``.
"""

__all__: list[str] = []
