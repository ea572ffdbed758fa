"""``python -m at_jax.models.pretrained``: the command ``at-jax weights``."""

import sys

from at_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(name="weights"))
