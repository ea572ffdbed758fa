"""A run whose student is a constant: a line, keys in its files, and no second line after a resume."""

import flax.linen as nn
import small_run

from at_jax import loop


class Constant(nn.Module):
    """Logits that ignore the images; without a dead layer, so that a run is cheap."""

    classes: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(self.classes)(0 * images.mean(axis=(1, 2)))


def test_run_of_a_constant_student_warns_once_and_leaves_it_in_its_files(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("at_jax.training.run_log.log", said.append)
    config = small_run.config(method="min_l2", epochs=3, optimizer__drop_epochs=())
    arguments = {"student": Constant(), "dataset": small_run.arrays()}
    result = loop.train_and_evaluate(config, tmp_path, **arguments)
    (warning,) = [text for text in said if "constant" in text]
    assert warning.startswith("Warning: epoch 2: Constant has become a constant")
    assert warning.endswith("lower min_l2.beta")
    assert [line["constant_student"] for line in small_run.lines_of(tmp_path)] == [1, 1, 1]
    assert result["constant_student"] is True
    # The third epoch again: the collapse was reported before.
    said.clear()
    (tmp_path / "result.json").unlink()
    last = tmp_path / "checkpoints" / "9"
    last.rename(tmp_path / "gone")
    loop.train_and_evaluate(config, tmp_path, **arguments)
    assert last.exists() and not [text for text in said if "constant" in text]
