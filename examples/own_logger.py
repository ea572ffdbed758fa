"""A logger passed to the trainer as a callback; a Weights & Biases or MLflow logger has the same form.

    python -m examples.own_logger

With Weights & Biases, ``on_epoch`` is ``wandb.log(metrics, step=metrics["step"])`` and ``on_end`` is
``wandb.summary.update(result); wandb.finish()``.
"""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

from at_jax import loop
from at_jax.training import config_files


class CsvLogger:
    """Writes the metrics of every epoch to a CSV file, and the final error to another."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.rows: list[Mapping[str, Any]] = []

    def on_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of an epoch to epochs.csv."""
        self.rows.append(metrics)
        with open(self.folder / "epochs.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(metrics))
            writer.writeheader()
            writer.writerows(self.rows)

    def on_end(self, result: Mapping[str, Any]) -> None:
        """Write the final test error."""
        (self.folder / "error.txt").write_text(f"{result['test_error']}\n")


def main(workdir: str = "runs/own_logger", **changes) -> dict:
    """Train with the logger; ``changes`` are config keys."""
    config = config_files.load("digits", "method=at")
    config.update_from_flattened_dict(changes)
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    return loop.train_and_evaluate(config, workdir, callbacks=[CsvLogger(folder)])


if __name__ == "__main__":
    main()
