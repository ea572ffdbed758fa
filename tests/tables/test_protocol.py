"""The table of the CIFAR-100 protocol: its recipe, its quoted results, and its runs in miniature."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from at_jax import models
from at_jax.tables import command as program
from at_jax.tables import job, markdown, plan, protocol, registry, summary
from at_jax.training.components import compatibility, tracing

NAME = "cifar100_protocol"
PAIRS = [pytest.param(*pair, id="<-".join(pair)) for pair in protocol.RESULTS]


def specs(out="out", **options):
    table = registry.TABLES[NAME]()
    common = plan.common_config(table, **options)
    return table, common, plan.expand(table, table.rows, common, 1, pathlib.Path(out))


def test_every_run_follows_the_protocol():
    _, _, found = specs()
    # Five teachers; six students on labels only, one of them with two teachers; seven with KD and with AT.
    assert len(found) == 5 + 6 + 7 + 7
    for spec in found:
        config = spec.config
        assert (config.epochs, config.batch_size, config.accumulation) == (240, 64, 1)
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.schedule, optimizer.nesterov) == ("sgd", "steps", False)
        # Counted from 0: the 151st, 181st and 211th epoch have a lower rate.
        assert tuple(optimizer.drop_epochs) == (150, 180, 210)
        assert (optimizer.learning_rate, optimizer.drop_factor) == (0.05, 0.1)
        assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
        assert (optimizer.decay_mask, optimizer.warmup_epochs) == ("all", 0)
        data = config.data
        assert (data.drop_last, data.pad_mode, data.pad, data.mirror) == (False, "zero", 4, True)
        assert data.train_examples == data.validation_examples == data.color_jitter == 0
        np.testing.assert_allclose(np.array(data.mean) / 255, (0.5071, 0.4867, 0.4408))
        np.testing.assert_allclose(np.array(data.std) / 255, (0.2675, 0.2565, 0.2761))
        assert (config.kd.alpha, config.kd.temperature) == (0.9, 4.0)
        assert (config.at.beta, config.at.p, config.at.kind) == (1000.0, 2.0, "sum")
        assert (config.at.align, config.at.convention) == ("pool", "code")
        assert config.transfer.decay == "constant" and config.transfer.begin_epoch == 0


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        pytest.param(
            *pair, id="<-".join(pair), marks=() if pair[0] == "vgg_8" else pytest.mark.slow
        )
        for pair in protocol.RESULTS
    ],
)
def test_attention_is_transferred_at_the_points_of_the_protocol(student, teacher):
    (at,) = (
        row
        for row in registry.TABLES[NAME]().rows
        if (row.student, row.teacher, row.method) == (student, teacher, "at")
    )
    taps = [
        tracing.shapes(models.build(name, 100), (32, 32, 3), name).taps
        for name in (student, teacher)
    ]
    pairs = compatibility.pair_points(at.changes.get("transfer.points", ()), *taps)
    sides = {"vgg_8": [16, 8, 4, 4]}.get(student, [32, 16, 8])
    for points, shapes in zip(zip(*pairs, strict=True), taps, strict=True):
        assert [shapes[point].shape[1] for point in points] == sides


def test_quoted_results_are_errors_of_the_published_accuracies():
    table = registry.TABLES[NAME]()
    errors = {row.name: (row.paper.error, row.paper.status) for row in table.rows}
    assert errors["wrn_16_2-none"] == (26.74, "quoted")  # 73.26
    assert errors["cifar_resnet_20-cifar_resnet_110-kd"] == (29.33, "quoted")  # 70.67
    assert errors["cifar_resnet_8x4-cifar_resnet_32x4-at"] == (26.56, "quoted")  # 73.44
    assert errors["vgg_8-vgg_13-at"] == (28.57, "quoted")  # 71.43
    assert table.teachers["cifar_resnet_32x4"].error == 20.58  # 79.42
    assert {row.teacher for row in table.rows} == set(table.teachers)
    # The alone-trained student is one run, and one number, with either teacher.
    alone = [pair for pair in protocol.RESULTS if pair[0] == "cifar_resnet_20"]
    assert len({protocol.RESULTS[pair]["none"] for pair in alone}) == 1 < len(alone)


def test_table_says_that_its_quoted_results_are_not_the_paper_s():
    table, common, found = specs()
    planned = job.Job(
        named=(NAME,), every=table, table=table, rows=table.rows, common=common, changes=(), specs=found,
        to_train=[], out=pathlib.Path("out"), label="",
        images=None, together=1, record=None, options=(), search=None,
    )  # fmt: skip
    text = markdown.render(summary.summarize(planned))
    assert "The last two columns are from the README of RepDistiller" in text
    assert "after 240 epochs; all other numbers were measured here." in text
    assert "| **RepDistiller** | status |" in text and "the paper" not in text
    assert "| `kd` |  |  |  | 0 of 1 |  |  | 25.08 | quoted |" in text
    assert "| teacher, vgg_13 |  |  |  | 1 run |  |  | 25.36 | quoted |" in text


def make_folder(root):
    """A hundred classes of one image each for training, and one for the test: {train,test}/class/*.png."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(100):
            directory = root / split / f"class{label:02d}"
            directory.mkdir(parents=True)
            pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(directory / "image.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The images, and the place of tables that share teachers."""
    root = tmp_path_factory.mktemp("protocol")
    make_folder(root / "images")
    return root


@pytest.mark.slow  # compiles two to five networks for each pair
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_pair_is_trained_on_a_hundred_classes(student, teacher, folder, compiled_once):
    # The smallest networks keep the batch size: 64 images and the other 36. A second size takes another
    # program, and the deep networks take minutes to compile.
    batch = 64 if student == "vgg_8" else 100
    out = folder / f"batch{batch}"
    rows = f"{student}-none,{student}-{teacher}-*"
    arguments = [
        "--data", str(folder / "images"), "--epochs", "1", "--seeds", "1", "--together", "3",
        "--set", "runtime.tensorboard=False", "--set", f"batch_size={batch}", "--rows", rows,
    ]  # fmt: skip
    assert program.main([NAME, *arguments, "--out", str(out)]) == 0
    numbers = json.loads((out / "table.json").read_text())
    # The table lists the pairs of earlier commands too.
    found = [
        row for row in numbers["rows"] if (row["student"], row["teacher"]) == (student, teacher)
    ]
    assert [row["method"] for row in found] == ["none", "kd", "at"]
    for row in found:
        (seed,) = row["seeds"]
        assert 0 <= seed["test_error"] <= 100 and seed["epochs"] == 1
        path = out / "runs" / row["name"] / "seed0" / "metrics.jsonl"
        (line,) = map(json.loads, path.read_text().splitlines())
        assert line["step"] == (2 if batch == 64 else 1)
        assert np.isfinite(line["loss"]) and line["train_top5_error"] <= line["train_error"]
        term = {"kd": "loss/distillation", "at": "loss/attention"}.get(row["method"], "loss")
        assert line[term] > 0
    (trained,) = [each for each in numbers["teachers"] if each["teacher"] == teacher]
    assert trained["run"]["epochs"] == 1
