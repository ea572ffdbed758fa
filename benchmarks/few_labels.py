"""What attention transfer gives a student of 200 labelled digits: seeds of each method, and their mean.

    python -m benchmarks.few_labels                                      the table of the README
    python -m benchmarks.few_labels --validation=500 --seeds=3 --betas=25,50    how its beta was chosen

The teacher is trained once, on all training images; the seed changes the student alone. With
--validation that many training images are held out and measured in place of the test set.
"""

import json
import pathlib
import statistics
import sys

from absl import app, flags, logging

_SEEDS = flags.DEFINE_integer("seeds", 5, "Students of each method.", lower_bound=1)
_BETAS = flags.DEFINE_list("betas", [], "Weights to try; empty: that of configs/digits.py.")
_METHODS = flags.DEFINE_list("methods", ["none", "at"], "Methods to compare.")
_VALIDATION = flags.DEFINE_integer(
    "validation", 0, "Training images to measure on; 0: the test set."
)
_OUT = flags.DEFINE_string("out", "runs/few_labels", "Where the runs live.")


def main(_: list[str]) -> None:
    """Train every cell, and print a Markdown table."""
    from at_jax import loop
    from at_jax.settings import teacher_config
    from configs import digits

    logging.set_verbosity(logging.WARNING)
    out = pathlib.Path(_OUT.value) / (
        f"validation{_VALIDATION.value}" if _VALIDATION.value else "test"
    )

    def config_of(method: str, seed: int, beta: float):
        config = digits.get_config(f"method={method}")
        config.seed, config.at.beta = seed, beta
        config.data.validation_examples = _VALIDATION.value
        if method != "none":
            config.teacher.checkpoint = str(out / "teacher")
        return config

    default = digits.get_config().at.beta
    teacher = loop.train_and_evaluate(
        teacher_config(config_of("none", 0, default)), out / "teacher"
    )
    rows = []
    for method in _METHODS.value:
        weights = [float(beta) for beta in _BETAS.value] or [default]
        has_beta = "at" in method.split("+")
        for beta in weights if has_beta else [default]:
            label = f"{method}, beta {beta:g}" if has_beta else method
            errors = []
            for seed in range(_SEEDS.value):
                folder = out / f"{method}-{beta:g}-{seed}"
                result = loop.train_and_evaluate(config_of(method, seed, beta), folder)
                errors.append(result["test_error"])
            rows.append((label, errors))
    print(
        f"\nerror in percent on the {teacher['evaluated_on']} part, teacher {teacher['test_error']:.2f}\n"
    )
    print("| method | mean | " + " | ".join(f"seed {s}" for s in range(_SEEDS.value)) + " |")
    print("|---" * (2 + _SEEDS.value) + "|")
    for label, errors in rows:
        cells = " | ".join(f"{error:.2f}" for error in errors)
        print(f"| {label} | **{statistics.mean(errors):.2f}** | {cells} |")
    (out / "table.json").write_text(json.dumps(dict(rows), indent=2) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    app.run(main)
