"""The examples do what they say."""

import importlib


def test_own_loop_brings_the_maps_together():
    attention = importlib.import_module("examples.own_loop").main(steps=12)
    assert attention[-1] < attention[0] / 2


def test_own_module_trains_and_opens_again(tmp_path, capsys):
    changes = {
        "epochs": 1,
        "batch_size": 20,
        "data.train_examples": 40,
        "teacher.model": "wrn_10_0.25",
        "teacher.epochs": 1,
        "teacher.drop_epochs": (),
        "teacher.train_examples": 40,
        "runtime.compilation_cache": "",
    }
    result = importlib.import_module("examples.own_module").main(str(tmp_path), **changes)
    # 3*3*1*16 + 16, 3*3*16*32 + 32, 32*10 + 10
    assert result["parameters"] == 160 + 4640 + 330
    assert "opened again: logits of shape (1, 10)" in capsys.readouterr().err


def test_attention_maps_of_a_run(finished, capsys):
    found = importlib.import_module("examples.attention_maps").main(str(finished[0]), count=3)
    assert list(found) == ["group1", "group2", "group3"]
    assert all(len(values) == 3 and min(values) >= -1 for values in found.values())
    assert "group3" in capsys.readouterr().out
