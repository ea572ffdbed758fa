"""The command line of the tables: flags and messages. Nothing is trained here."""

import re

import pytest

from at_jax.tables import command as program
from at_jax.tables import job


def test_list_prints_every_paper_result_with_its_status(capsys):
    assert program.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"wrn_16_1-none +paper  8\.77 \(verified\)", text)
    assert re.search(r"wrn_16_1-wrn_16_2-at\+kd +paper  7\.51 \(unverified\)", text)
    assert re.search(r"wrn_16_1-wrn_16_2-at-sum4 +paper  8\.09 \(unverified\)", text)
    assert re.search(r"nin_thin-nin_wide-gradient_at +paper 12\.10 \(unverified\)", text)
    assert text.count("paper") == text.count("verified)")
    # Another source is not called the paper.
    assert re.search(r"vgg_8-vgg_13-kd +RepDistiller 27\.02 \(quoted\)", text)
    assert text.count("RepDistiller ") == text.count("(quoted)") + 1  # and in the title


def test_list_of_a_table_prints_its_rows_only(capsys):
    assert program.main(["digits", "--list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("digits: ")
    assert [row.strip() for row in rows][:2] == ["wrn_10_1-none", "wrn_10_1-wrn_16_2-at"]
    assert all(row.startswith("  wrn_10_1-") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digts"], "did you mean digits"),
        (["digts", "--list"], "did you mean digits"),
        ([], "name a table, one of cifar10_activation"),
        (["digits", "--rows", "nothing"], "--rows must match rows of the table (wrn_10_1-none"),
        (["digits", "--seeds", "0"], "--seeds must be from 1 to 1000, got 0"),
        (["digits", "--seeds", "many"], "--seeds: invalid int value: 'many'"),
        (["digits", "--epochs", "-1"], "--epochs must be at least 1, got -1"),
        (["digits", "--together", "0"], "--together must be from 1 to 1000"),
        (["digits", "--seeds", "100000"], "--seeds must be from 1 to 1000"),
        (["digits", "--set", "compare=('none',)"], "a table compares its rows"),
        (["digits", "--search", "none:at.beta=1,2"], "must be a key of the method that tries it, got none"),
        (["digits", "--search", "transfer.decay=linear,constant"], "as in --search ROWS:transfer.decay="),
        (["digits", "--set", "at:kd.alpha=0.3"], "of the rows at has this key, got '0.3': leave it out"),
        (["digits", "--set", "none:transfer.decay=linear"], "no method of the rows none has this key"),
        (["cifar10_mappings", "--set", "kd.alpha=0.3"], "no method of this table has this key"),
        (
            ["digits", "--search", "none:optimizer.warmup_epochs=500,1", "--rows", "none"],
            "the learning-rate warm-up must be shorter than the run of 400 steps, got 2000",
        ),
        (["digits", "--data", __file__], "which is a file: give an existing folder"),
        (["digits", "--set", "transfer.points=('nope',)", "--rows", "*-at"], "each must be"),
        (["digits", "--set", "batch_size=100000"], "batch_size: expected 1 to 1442"),
        (["digits", "--set", "runtime.devices=99"], "runtime.devices must be 0 (automatic) to"),
        (["digits", "--shard", "3/2"], "--shard must be I/N"),
        (["digits", "--shard", "a"], "--shard must be I/N"),
        (["digits", "--set", "at.betta=3"], "did you mean at.beta"),
        (["digits", "--set", "at.beta=much"], "type float, got 'much'"),
        (["digits", "--set", "at.beta=-1.0"], "at.beta must be from 0 to 1e+08, got -1.0: set it with --"),
        (["digits", "--set", "seed=3"], "use --seeds"),
        (["digits", "--sedes", "3"], "did you mean --seeds?"),
        (["digits", "--seed", "7"], "unknown argument '--seed': use --seeds"),
        (["digits", "--config.epochs=3"], "unknown argument '--config.epochs=3': use --epochs"),
        (["digits", "--data", "no/such_folder"], "there is no folder 'no/such_folder'"),
        (["digits", "--set", "temperature=3"], "did you mean flip_symmetry.temperature=...?"),
        (["digits", "--batch_size=64"], "did you mean --set batch_size=64?"),
        (["digits", "--config.at.beta=3"], "did you mean --set at.beta=3?"),
        (["digits", "--at.betta=3"], "did you mean --set at.beta=?"),
        (["digits", "wrn_10_1-none"], "separate rows by commas"),
        (["cifar10_mappings", "--set", "at.p=3.0"], "is defined by at.p=1.0"),
        (["cifar10_activation", "--data", "./nowhere/at/all"], "does not exist"),
        (["digits", "--merge"], "holds no table"),
        (["--methods", "none"], "--methods needs the --config that they are for"),
        (["digits", "--config=digits"], "got also the table 'digits'"),
        (["--config=digits", "--methods", "none,att"], "--methods must be none, one of kd, at"),
        (["--config=digits", "--methods", "at+kd,kd+at"], "--methods must name each method once"),
        (["--config=digits", "--methods", ","], "--methods must name each method once, got ','"),
        (["--config=digits:method=att"], "method must be none, one of kd, at"),
        (["--config=digits:studdent=a"], "did you mean 'student'?"),
        (["--config=digts"], "did you mean digits?"),
        (["--config=digits:student=foo", "--methods", "none"], "student='foo': unknown network 'foo'"),
        (["--config=folder:teacher=wrn_10_1", "--methods", "at"], "use --data DIR"),
        (["--config=digits", "--search", "at.beta=1,2"], "got data.validation_examples=0: set the num"),
        (["--config=digits", "--set", "teacher.checkpoint=nowhere"], "nowhere holds no run"),
        (["--config=digits", "--set", "teacher.model=wrn_10_1"], "or give student= and teacher= to --con"),
        (["--config=digits", "--set", "method=at"], "choose rows with --rows, or --methods"),
        (["--list", "--methods", "at"], "--methods needs the --config"),
        (["--config=digits", "--set", "at:teacher.checkpoint=a"], "must be the same in all rows"),
    ],
)  # fmt: skip
def test_main_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    assert program.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_main_other_errors_keep_their_traceback(monkeypatch, tmp_path):
    def broken(options):
        raise ValueError("a bug")

    monkeypatch.setattr(job, "from_options", broken)
    with pytest.raises(ValueError, match="a bug"):
        program.main(["digits", "--out", str(tmp_path)])


def test_main_other_options_in_the_same_folder_are_refused(fake_training, tmp_path, capsys):
    base = ["tiny", "--out", str(tmp_path), "--seeds", "1"]
    assert program.main([*base, "--epochs", "1"]) == 0
    assert program.main([*base, "--epochs", "2"]) == 2
    assert "epochs: 1 there, 2 now" in capsys.readouterr().err
    assert program.main(["digits", "--out", str(tmp_path), "--merge"]) == 2
    assert "title: 'A tiny table' there, 'Handwritten" in capsys.readouterr().err
    # The label does not affect the runs.
    labeled = program._parse([*base, "--epochs", "1", "--label", "small"])
    assert job.from_options(labeled).label == "small"
