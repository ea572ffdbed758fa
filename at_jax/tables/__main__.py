"""``python -m at_jax.tables``: the command ``at-jax tables``."""

import sys

from at_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(name="tables"))
