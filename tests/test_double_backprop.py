"""The benchmark of double backprop: its floors by hand, its other modes exact, its files, its errors."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import models
from at_jax.terms import InputGradient
from benchmarks.double_backprop import floor, modes, programs, results

ROOT = Path(__file__).parents[1]


def test_forward_cost_by_hand():
    # TinyNet on 8x8 RGB images: 3x3 from 3 to 3 channels on 8x8, 3x3 from 3 to 4 on 4x4, then 4 to 3.
    whole, first = floor.forward_cost(tiny.TinyNet(), 8)
    assert first == 8 * 8 * 9 * 3 * 3
    assert whole == first + 4 * 4 * 9 * 3 * 4 + 4 * 3
    # Published for WRN-16-1: 26.7 million multiply-adds an image.
    assert floor.forward_cost(models.build("wrn_16_1"), 32)[0] == pytest.approx(26.7e6, rel=0.01)


@pytest.mark.parametrize(
    ("method", "passes", "cost"),
    [
        # S = 10, s = 1, T = 40.
        ("none", "3S - s", 29),
        ("kd", "3S - s + T", 69),
        ("at+kd", "3S - s + T", 69),
        ("min_l2", "6S - s", 59),
        ("gradient_at", "6S - s + 2T", 139),
        ("gradient_at+at+kd", "6S - s + 2T", 139),
        ("flip_symmetry", "12S - 2s", 118),
        ("flip_symmetry+kd", "12S - 2s + T", 158),
    ],
)
def test_passes_by_hand(method, passes, cost):
    assert str(floor.passes(method)) == passes
    assert floor.passes(method).cost(10, 1, 40) == cost


@pytest.mark.parametrize("squared", [False, True])
def test_forward_over_reverse_takes_the_same_gradient(squared):
    student, teacher = tiny.TinyNet(), tiny.TinyNet((5, 6))
    terms = tiny.objective(student, teacher, gradient_at=InputGradient(squared))
    created, variables = tiny.create(terms), tiny.teacher_variables(terms)
    batch = tiny.batch(4)
    images = tiny.prepare(None, jnp.asarray(batch["image"]), None)

    def of(loss):
        run = functools.partial(jax.value_and_grad(loss, has_aux=True), created.params)
        rest = (created.batch_stats, variables, images, jnp.asarray(batch["label"]))
        return tiny.jit(run)(*rest, {"gradient_at": jnp.asarray(30.0)})

    (value, outputs), gradient = of(terms)
    (other, of_other), other_gradient = of(modes.forward_over_reverse(terms))
    np.testing.assert_allclose(other, value, rtol=1e-5)
    assert tiny.largest_deviation(other_gradient, gradient) < 1e-4
    assert tiny.largest_deviation(of_other.batch_stats, outputs.batch_stats) < 1e-5


@pytest.mark.parametrize("name", ["wrn_10_0.25", "resnet_18", "resnet_50"])
def test_rematerialised_blocks_compute_the_same(name):
    module = models.build(name)
    again = module.clone(remat=True)
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        variables, jax.eval_shape(again.init, jax.random.key(0), images)
    )
    variables = tiny.filled(variables)

    def gradient(module):
        def loss(params):
            given = variables | {"params": params}
            logits, _ = module.apply(given, images, train=True, mutable=["batch_stats"])
            return jnp.sum(jax.nn.logsumexp(logits, axis=-1))

        return jax.grad(loss)

    # It is not the same program: forward convolutions stand in the backward pass again.
    kept, computed = (
        str(jax.make_jaxpr(gradient(m))(variables["params"])).count("at_conv[")
        for m in (module, again)
    )
    assert computed > kept
    if name == "wrn_10_0.25":  # the others are made by the same function, and take long to compile
        results = [tiny.jit(gradient(m))(variables["params"]) for m in (again, module)]
        assert tiny.largest_deviation(*results) < 1e-4


def test_rows_name_a_method_and_a_mode():
    assert programs.split("at+kd") == ("at+kd", "")
    assert [programs.split(row)[1] for row in programs.ROWS[-2:]] == [
        "forward over reverse",
        "remat",
    ]
    setting = programs.Setting("nin_thin", "nin_wide", 32, 8, "float32", tuple(jax.local_devices()))
    with pytest.raises(ValueError, match="needs a student of blocks, got nin_thin"):
        programs.objective_of(programs.ROWS[-1], setting)


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.double_backprop", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_whole_run(tmp_path):
    flags = ("--pair=wrn_10_0.25<-wrn_10_0.5", "--image_size=16", "--batch=4", "--rounds=2")
    rows = "gradient_at,gradient_at (forward over reverse)"
    done = run(*flags, f"--methods={rows}", "--devices=2", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "double_backprop.json").read_text())
    assert list(record["rows"]["JAX"]) == ["none", *rows.split(",")]
    plain, second, forward_over_reverse = record["rows"]["JAX"].values()
    assert forward_over_reverse["flop_ratio"] > second["flop_ratio"]
    assert plain["time_ratio"] == plain["flop_ratio"] == plain["floor"] == 1
    assert second["passes"] == "6S - s + 2T" and len(second["samples"]) == 2
    # These networks are so narrow that elementwise work counts: near the floor, not on it.
    assert second["flop_ratio"] == pytest.approx(second["floor"], rel=0.25)
    assert plain["unoptimised_convolutions"] == second["unoptimised_convolutions"] == 0
    assert record["device"] == "2 x cpu" and second["temporary_bytes"] > plain["temporary_bytes"]
    table = (tmp_path / "double_backprop.md").read_text()
    assert table.strip() in done.stdout and "| plain | 3S - s |" in table
    assert (tmp_path / "double_backprop.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--methods=none,at_grad", "--methods must be among none, kd, .*got 'at_grad'"),
        ("--methods=gradient_at (remat)", "needs a student of blocks, got nin_thin"),
        ("--pair=wrn_16_1", "--pair must be student<-teacher, got 'wrn_16_1'"),
        ("--pair=wrn_16_1<-wrn_17_1", "must be 6n.4"),
        ("--pair=resnet_18<-resnet_18", "ResNet-18 needs images of at least 32x32 pixels"),
        ("--devices=3", "--batch must be a multiple of --devices=3, got 16"),
        ("--dtype=float16", "--dtype"),
        ("--batch=0", "--batch"),
    ],
)
def test_bad_flags_end_with_one_line_and_code_2(flag, message):
    done = run("--pair=nin_thin<-nin_wide", "--image_size=16", "--batch=16", flag)
    assert done.returncode == 2
    assert not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(message, done.stderr)


def test_the_table_beside_pytorch():
    def measured(median, **more):
        return {"median": median, "quartiles": [median, median], "images_per_second": 1.0} | more

    analysed = {
        "passes": "3S - s", "floor": 1.0, "time_ratio": 1.0, "flops": 1e9, "flop_ratio": 1.0,
        "temporary_bytes": 10**6, "compile_seconds": 1.0, "unoptimised_convolutions": None,
    }  # fmt: skip
    rows = {
        "JAX": {"none": measured(0.2, **analysed), "min_l2": measured(0.3, **analysed)},
        "PyTorch eager NCHW": {"none": measured(0.1), "min_l2": measured(0.6)},
        "PyTorch eager channels_last": {"none": measured(0.16), "min_l2": measured(0.5)},
        "PyTorch compiled": {"none": measured(0.05)},
    }
    about = dict.fromkeys(
        ("student", "teacher", "batch", "image_size", "precision", "malloc", "device", "host", "rounds",
         "steps_per_round", "date"), "x",
    )  # fmt: skip
    table = results.markdown(about | {"versions": {"jax": "1"}, "rows": rows})
    # The faster eager layout: 200 / 100 and 300 / 500; what was not counted or not run is a dash.
    assert "| plain | 200 | 100 | 160 | 50 | **2.00** |" in table
    assert "| min_l2 | 300 | 600 | 500 | - | **0.60** |" in table
    assert "| 1.0 | - |" in table
