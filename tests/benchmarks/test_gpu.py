"""The GPU benchmark at toy sizes on CPU: its rows, failures, interruptions and the second order by hand."""

import functools
import json
import pathlib

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from convolutions import assert_close

from at_jax.conv import conv_general_dilated
from at_jax.conv_lowerings import as_lax, cpu, make_window
from benchmarks.gpu import convolutions, plan, record, report

CONDITIONS = {"device": "NVIDIA H100 80GB", "versions": {"jax": "1.0"}, "date": "2026-11-25"}


def row(name, result=None):
    def measure():
        if result is None:
            raise RuntimeError(f"{name} ran out of memory\nand more")
        return result

    return record.Row("steps", name, lambda: measure)


STEP = {"steps_per_second": 2.0, "peak_mib": 300.0, "loss": 2.3}


def test_a_failing_row_is_noted_and_tried_again(tmp_path):
    results = record.Record(tmp_path, CONDITIONS)
    assert results.path.name == "nvidia_h100_80gb.json"
    assert record.run(results, [row("a; jax"), row("b; jax", STEP)], seconds=60) == []
    text = report.write(results, []).read_text()
    assert "- a; jax: RuntimeError: a; jax ran out of memory\n" in text
    assert "| b; jax | 2 | 300 | 2.3 |" in text
    assert (tmp_path / "nvidia_h100_80gb.png").exists()
    again = record.Record(tmp_path, CONDITIONS)
    assert [again.has(row(name)) for name in ("a; jax", "b; jax")] == [False, True]


def test_a_row_that_cannot_be_compiled_is_noted(tmp_path):
    def prepare():
        raise ValueError("unknown operation")

    results = record.Record(tmp_path, CONDITIONS)
    rows = [record.Row("steps", "a; jax", prepare), row("b; jax", STEP)]
    assert record.run(results, rows, seconds=60) == []
    assert results.rows["steps"]["a; jax"] == {"error": "ValueError: unknown operation"}
    assert results.has(rows[1])


def test_rows_without_time_are_named_and_measured_by_the_next_run(tmp_path):
    rows = [row("a; jax", STEP), row("b; jax", STEP)]
    results = record.Record(tmp_path / "new", CONDITIONS)
    assert record.run(results, rows, seconds=0) == rows
    assert "- steps: a; jax" in report.write(results, ["steps: a; jax"]).read_text()
    assert record.run(results, rows[:1], seconds=60) == []
    other_day = record.Record(tmp_path, {**CONDITIONS, "date": "2026-11-26"})
    assert record.run(other_day, rows, seconds=60) == [] and len(other_day.rows["steps"]) == 2


def test_results_of_other_versions_are_kept_apart(tmp_path):
    record.run(record.Record(tmp_path, CONDITIONS), [row("a; jax", STEP)], seconds=60)
    newer = record.Record(tmp_path, {**CONDITIONS, "versions": {"jax": "2.0"}})
    assert not newer.has(row("a; jax"))
    assert (tmp_path / "nvidia_h100_80gb.previous.json").exists()


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("forms", [as_lax, cpu])
def test_orders_by_hand_are_the_derivatives_of_the_family(forms, groups):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 4 // groups, 8)) / 4, jnp.float32)
    geometry = (2, 2), ((1, 1), (1, 1))
    window = make_window(x.shape, w.shape, *geometry, groups=groups)

    def loss(x, w):
        layout = ("NHWC", "HWIO", "NHWC")
        y = conv_general_dilated(
            x, w, *geometry, dimension_numbers=layout, feature_group_count=groups
        )
        return jnp.sum(y**2) / 2

    def penalty(x, w):
        return jnp.sum(jax.grad(loss)(x, w) ** 2) / 2

    for function, expected in (
        (convolutions.first_order, loss),
        (convolutions.second_order, penalty),
    ):
        found = tiny.jit(functools.partial(function, forms, window))(x, w)
        assert_close(found, tiny.jit(jax.grad(expected, (0, 1)))(x, w))


def test_layers_are_the_distinct_convolutions_of_a_network():
    names = [str(layer) for layer in convolutions.layers("mobilenet_v2_0.5", 32, 4)]
    assert names[:3] == [
        "3x3 stride 2, 3 to 16, 32 px, batch 4",
        "1x1, 16 to 16, 16 px, batch 4",
        "depthwise 3x3, 16 to 16, 16 px, batch 4",
    ]
    assert len(names) == len(set(names))


def test_full_plan_has_a_row_for_every_case():
    rows = plan.rows(plan.FULL)
    # Two pairs, three methods, three precisions, one and ten steps per dispatch; PyTorch's where it is.
    steps = [r.name for r in rows if r.section == "steps" and "at_jax" in r.name]
    assert len(steps) == len(set(steps)) == 36
    assert {r.section for r in rows} == {"steps", "convolutions", "epoch", "together"}


@pytest.mark.slow
def test_command_measures_everything_at_toy_sizes(tmp_path, compiled):
    arguments = ["-m", "benchmarks.gpu", "--tiny", f"--out={tmp_path}"]
    started = commands.start(commands.environment(compiled), arguments)
    ((code, _, errors),) = commands.finish(started)
    assert code == 0, errors
    (stored,) = pathlib.Path(tmp_path).glob("*.json")
    rows = json.loads(stored.read_text())["rows"]
    assert not [r for section in rows.values() for r in section.values() if "error" in r]
    of_jax = [name for name in rows["steps"] if "at_jax" in name]
    assert len(of_jax) == 2 and len(rows["convolutions"]) >= 3
    assert all(len(r["lax"]) == 2 for r in rows["convolutions"].values())
    assert rows["together"] and rows["epoch"]
