"""Preparation of a TFDS set, up to the point where TensorFlow is needed."""

import pathlib
import subprocess
import sys
import types

import pytest

from at_jax.data import prepare


def builder(urls, **changes):
    """The attributes of a TFDS builder that prepare.py reads."""
    infos = {url: types.SimpleNamespace(filename=name) for url, name in urls.items()}
    values = {"url_infos": infos, "builder_config": None, "MANUAL_DOWNLOAD_INSTRUCTIONS": None}
    return types.SimpleNamespace(**(values | changes))


TWO = {"https://a.org/x/one.tgz": "one.tgz", "http://b.org/two.tar": None}


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(prepare, "unreachable_hosts", lambda urls: ["www.cs.toronto.edu"])


def test_archive_names_without_a_file_name_use_the_url():
    assert prepare.archive_names(builder(TWO)) == ["one.tgz", "two.tar"]


def test_in_manual_dir_needs_all_archives(tmp_path):
    assert not prepare.in_manual_dir(builder(TWO), "")
    (tmp_path / "one.tgz").touch()
    assert not prepare.in_manual_dir(builder(TWO), str(tmp_path))
    # A builder with configurations lists the archives of all of them.
    assert prepare.in_manual_dir(builder(TWO, builder_config="small"), str(tmp_path))
    (tmp_path / "two.tar").touch()
    assert prepare.in_manual_dir(builder(TWO), str(tmp_path))


def test_unreachable_hosts_are_those_that_refuse_a_connection(monkeypatch):
    tried = []

    def connect(address, timeout):
        tried.append((address, timeout))
        if address[0] == "down.org":
            raise OSError("no route")
        import contextlib

        return contextlib.nullcontext()

    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(prepare.socket, "create_connection", connect)
    urls = ["https://up.org/a", "http://up.org/b", "http://down.org:8080/c"]
    assert prepare.unreachable_hosts(urls) == ["down.org"]
    assert sorted(tried) == [
        (("down.org", 8080), 3.0),
        (("up.org", 80), 3.0),
        (("up.org", 443), 3.0),
    ]
    # Behind a proxy, only the proxy must answer.
    monkeypatch.setenv("https_proxy", "http://proxy.lan:3128")
    tried.clear()
    assert prepare.unreachable_hosts(["https://down.org/a"]) == []
    assert tried == [(("proxy.lan", 3128), 3.0)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--dataset: expected the name of a TFDS data set"),
        (["--dataset=cifar1O"], "TFDS knows no data set 'cifar1O': did you mean 'cifar10'"),
        (["--dataset=imagenette/tiny"], "TFDS cannot open 'imagenette/tiny'"),
        (["--datset=cifar10"], "unrecognized arguments: --datset=cifar10"),
        (["cifar10"], "unrecognized arguments: cifar10"),
        (["--dataset=cifar10", "--manual_dir=/no/such"], "expected a directory, got '/no/such'"),
        (
            ["--dataset=imagenet2012"],
            "must be downloaded manually: place ILSVRC2012_img_train.tar",
        ),
        (
            ["--dataset=cifar10"],
            "cannot reach www.cs.toronto.edu to download cifar10: place cifar-10-binary.tar.gz in a "
            "directory and pass it: --manual_dir=DIR, MANUAL_DIR=DIR of make",
        ),
    ],
)
def test_main_with_a_user_error_prints_one_line_and_returns_2(
    argv, message, tmp_path, capsys, offline
):
    assert prepare.main([f"--data_dir={tmp_path}", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_main_with_many_archives_names_five(tmp_path, capsys, offline, monkeypatch):
    many = builder(
        {f"https://a.org/{i}": f"part{i}.tgz" for i in range(8)}, is_prepared=lambda: False
    )
    monkeypatch.setattr(prepare, "_builder", lambda name, data_dir: many)
    assert prepare.main(["--dataset=large", f"--data_dir={tmp_path}"]) == 2
    assert "place part0.tgz, part1.tgz, part2.tgz, part3.tgz, part4.tgz and 3 more in" in (
        capsys.readouterr().err
    )


def test_main_without_tensorflow_downloads_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(prepare, "unreachable_hosts", lambda urls: [])
    assert prepare.main(["--dataset=cifar10", f"--data_dir={tmp_path}"]) == 2
    assert "preparing needs TensorFlow" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.gz*"))


def test_main_with_a_prepared_set_leaves_it_unchanged(tmp_path, capsys, monkeypatch):
    prepared = types.SimpleNamespace(
        is_prepared=lambda: True,
        data_path=tmp_path / "svhn_cropped",
        info=types.SimpleNamespace(
            file_format=types.SimpleNamespace(value="array_record"), alternative_file_formats=[]
        ),
    )
    monkeypatch.setattr(prepare, "_builder", lambda name, data_dir: prepared)
    argv = ["--dataset=svhn_cropped", f"--data_dir={tmp_path}"]
    assert prepare.main(argv) == 0
    message, command = capsys.readouterr().out.splitlines()
    assert message == f"svhn_cropped is already prepared in {tmp_path}/svhn_cropped"
    assert command == (
        "train on it: at-jax train --config=cifar10 --config.data.name=svhn_cropped "
        f"--config.data.data_dir={tmp_path}"
    )
    prepared.info.file_format.value = "tfrecord"
    assert prepare.main(argv) == 2
    assert "holds svhn_cropped as tfrecord, which training cannot read" in capsys.readouterr().err


def test_prepare_runs_as_a_file_without_at_jax_and_jax(tmp_path):
    # -S -I: no site-packages and no PYTHONPATH, so an import of jax, absl or at_jax would fail.
    code = (
        "import runpy, sys; sys.argv = ['prepare'];"
        f"runpy.run_path({str(pathlib.Path(prepare.__file__))!r});"
        "sys.exit(sorted(m for m in ('jax', 'flax', 'numpy', 'at_jax') if m in sys.modules) or 0)"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    run = subprocess.run(
        [sys.executable, prepare.__file__, "--dataset="], capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr.startswith("error: --dataset: expected")


@pytest.mark.parametrize("flag", ["data_dir", "manual_dir"])
@pytest.mark.parametrize("value", ["gs://bucket/data", "gs:/typo"])
def test_main_url_in_place_of_a_directory_is_one_line(flag, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["--dataset=cifar10", f"--{flag}={value}"]) == 2
    printed = capsys.readouterr().err
    assert printed == f"error: --{flag}: expected a local directory, got {value!r}: choose one\n"
    assert not list(tmp_path.iterdir())
