"""Rows of the benchmark of double backpropagation, their other modes, and the tables."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from at_jax import models
from at_jax.errors import UserError
from at_jax.terms import GradientTransfer, MinL2
from benchmarks.double_backprop import chart, modes, programs, results
from benchmarks.double_backprop.setting import Setting

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("squared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_forward_over_reverse_has_the_loss_and_gradient_of_the_library(squared):
    objective = tiny.objective(
        tiny.TinyNet(), tiny.TinyNet((5, 6)), GradientTransfer(squared=squared)
    )
    created, variables = tiny.create(objective), tiny.teacher_variables(objective)
    batch = tiny.batch(4)
    images = tiny.prepare(None, jnp.asarray(batch["image"]), None)
    keys = jax.random.split(jax.random.key(0), 4)

    def differentiated(loss):
        run = functools.partial(jax.value_and_grad(loss, has_aux=True), created.params)
        rest = (created.collections, variables, images, jnp.asarray(batch["label"]))
        return tiny.jit(run)(*rest, {"gradient_at": jnp.asarray(30.0)}, keys)

    (value, outputs), gradient = differentiated(objective)
    (other, of_other), other_gradient = differentiated(modes.forward_over_reverse(objective))
    np.testing.assert_allclose(other, value, rtol=1e-5)
    assert tiny.largest_deviation(other_gradient, gradient) < 1e-4
    assert tiny.largest_deviation(of_other.collections, outputs.collections) < 1e-5
    assert of_other.terms.keys() == outputs.terms.keys()


@pytest.mark.parametrize("terms", [(MinL2(),), (GradientTransfer(temperature=2.0),)])
def test_forward_over_reverse_of_other_terms_raises(terms):
    with pytest.raises(UserError, match=r"written for GradientTransfer\(\) alone"):
        modes.forward_over_reverse(tiny.objective(None, None, *terms))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) for n in ("wrn_10_0.25", "resnet_18", "resnet_50")],
)
def test_remat_of_a_network_computes_the_same_gradient_with_more_convolutions(name):
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

    # The programs differ: the backward pass computes the forward convolutions again.
    kept, computed = (
        str(jax.make_jaxpr(gradient(m))(variables["params"])).count("at_conv[")
        for m in (module, again)
    )
    assert computed > kept
    if name == "wrn_10_0.25":  # the others share its implementation, and take long to compile
        results = [tiny.jit(gradient(m))(variables["params"]) for m in (again, module)]
        assert tiny.largest_deviation(*results) < 1e-4


def test_split_of_the_rows_gives_method_and_mode():
    assert programs.split("at+kd") == ("at+kd", "")
    assert [programs.split(row)[1] for row in programs.ROWS[-2:]] == [
        "forward over reverse",
        "remat",
    ]


@pytest.fixture
def setting():
    return Setting("nin_thin", "nin_wide", 32, 8, "float32", tuple(jax.local_devices()))


def test_objective_of_remat_with_a_network_without_blocks_raises(setting):
    with pytest.raises(UserError, match="needs a student of blocks, got nin_thin"):
        programs.objective_of(programs.ROWS[-1], setting)


def test_objective_of_each_row_has_the_terms_of_its_method(setting):
    for row in programs.ROWS[:-1]:
        objective = programs.objective_of(row, setting)
        method, _ = programs.split(row)
        assert {term.name for term in objective.terms} == set(method.split("+")) - {"none"}
        assert programs.schedules(objective).keys() == set(objective.weighted_terms)
    assert objective.teacher == setting.module("nin_wide")


def test_initial_state_of_activation_transfer_has_the_parameters_of_its_adapter(setting):
    objective = programs.objective_of("f_actt", setting)
    variables = tiny.filled(
        jax.eval_shape(
            setting.module("nin_thin").init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
        )
    )
    state = programs.initial_state(objective, setting, variables, tiny.sgd())
    assert state.params.keys() == {"student", "f_actt"}
    assert state.collections == {}


def test_markdown_with_pytorch_compares_with_the_faster_eager_layout():
    def measured(median, **more):
        times = {"median": median, "minimum": median / 2, "cpu_median": 2 * median}
        return {"quartiles": [median, median], "images_per_second": 1.0} | times | more

    analyzed = {
        "passes": "3S - s", "predicted_ratio": 1.0, "time_ratio": 1.0, "flops": 1e9, "flop_ratio": 1.0,
        "temporary_bytes": 10**6, "compile_seconds": 1.0, "slow_convolutions": None,
    }  # fmt: skip
    rows = {
        "JAX": {"none": measured(0.2, **analyzed), "min_l2": measured(0.3, **analyzed)},
        "PyTorch eager NCHW": {"none": measured(0.1), "min_l2": measured(0.6)},
        "PyTorch eager channels_last": {"none": measured(0.16), "min_l2": measured(0.5)},
        "PyTorch compiled": {"none": measured(0.05)},
    }
    about = dict.fromkeys(
        ("student", "teacher", "batch", "image_size", "precision", "malloc", "device", "host", "rounds",
         "steps_per_round", "date"), "x",
    )  # fmt: skip
    table = results.markdown(about | {"versions": {"jax": "1"}, "rows": rows})
    # 200 / 100 and 300 / 500; a dash for what was not counted or not run.
    assert "| plain | 200 | 100 | 160 | 50 | **2.00** |" in table
    assert "| min_l2 | 300 | 600 | 500 | - | **0.60** |" in table
    assert "| 1.0 | - |" in table
    assert (
        "| minimum, ms per step |" in table and "| plain | 100 | 50 | 80 | 25 | **2.00** |" in table
    )
    assert "| CPU time of all threads, median, ms per step |" in table
    assert "| min_l2 | 600 | 1200 | 1000 | - | **0.60** |" in table


def test_read_of_an_older_record_gives_the_committed_table_and_a_chart(tmp_path):
    record = results.read(ROOT / "results/double_backprop.json")
    committed = (ROOT / "results/double_backprop.md").read_text()
    rows = [line for line in results.markdown(record).splitlines() if line.startswith("| ")]
    assert rows[1:10] == [line for line in committed.splitlines() if line.startswith("| ")][1:10]
    chart.draw(record, record["rows"]["JAX"], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
