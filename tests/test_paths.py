"""Paths: local ones, cloud storage, and everything that is neither."""

import pathlib
import re

import pytest

from at_jax import paths
from at_jax.errors import UserError

FORMS = "expected a local path, gs://BUCKET/PATH or s3://BUCKET/PATH"


@pytest.mark.parametrize(
    "text", ["runs/x", "./a:b/c", "digits:method=at", "/a/b", "", "gs", "huggingface:a/b", "C:/x"]
)
def test_parse_local_path_is_that_of_pathlib(text):
    path = paths.parse(text)
    assert type(path) is type(pathlib.Path()) and path == pathlib.Path(text)
    assert paths.scheme(path) == "" and paths.absolute(text) == pathlib.Path(text).absolute()
    assert paths.reachable(text) == path and paths.resolve(text) == path.resolve()


def test_parse_expands_the_home_directory():
    assert paths.parse("~/x") == pathlib.Path.home() / "x"


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("hdfs://cluster/run", "copy it to one of these"),
        ("file:///tmp/run", "copy it to one of these"),
        ("gcs://bucket/run", "copy it to one of these"),
        ("https://example.org/run", "copy it to one of these"),
        ("gs:/typo", "begin with gs://"),
        ("gs:bucket/run", "begin with gs://"),
        ("GS://bucket/run", "begin with gs://"),
        ("runs/s3://bucket", "begin with s3://"),
        (pathlib.Path("gs://bucket/run"), "begin with gs://, and pass a string"),
        (pathlib.Path("gs://bucket/run").absolute(), "begin with gs://, and pass a string"),
        ("gs://", "write the name of the bucket after gs://"),
        ("s3:///run", "write the name of the bucket after s3://"),
        ("gs://Bucket/run", "write the name of the bucket after gs://"),
    ],
)
def test_parse_other_url_is_one_line(given, fix):
    with pytest.raises(UserError) as caught:
        paths.parse(given)
    assert str(caught.value).startswith(f"cannot use the path {str(given)!r}: {FORMS}: {fix}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package", "command"),
    [("gs://bucket/run", "gcsfs", '"at_jax[gcs]"'), ("s3://bucket/run", "s3fs", "s3fs")],
)
def test_parse_without_the_package_names_it(url, package, command, monkeypatch):
    monkeypatch.setattr(paths, "_is_installed", lambda name: name != package)
    with pytest.raises(
        UserError, match=re.escape(f"not installed: pip install {command}")
    ) as caught:
        paths.parse(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run"])
def test_cloud_path_stays_a_url(url, in_memory):
    for path in (paths.parse(url), paths.absolute(url), paths.resolve(paths.parse(url))):
        assert str(path) == url and str(path / "a" / "b") == f"{url}/a/b"
    assert paths.scheme(url) == url[:2]


@pytest.mark.parametrize("base", ["", "gs://bucket", "s3://bucket"])
def test_files_are_written_listed_and_removed(base, in_memory, tmp_path):
    folder = paths.parse(base or str(tmp_path)) / "run"
    paths.write_bytes(folder / "b.txt", b"1")
    paths.write_bytes(folder / "b.txt", b"2")
    paths.write_bytes(folder / "a" / "c.txt", b"3")
    assert paths.names(folder) == ["a", "b.txt"]
    assert (folder / "b.txt").read_bytes() == b"2"
    paths.download(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "a" / "c.txt").read_bytes() == b"3"
    paths.remove(folder / "a")
    paths.remove(folder / "a")
    assert paths.names(folder) == ["b.txt"]


def test_missing_directory_in_cloud_storage_holds_nothing(in_memory):
    # A bucket has no empty directories: one that was just made may be missing.
    assert paths.names(paths.parse("gs://bucket/no/such")) == []


def test_storage_that_fails_is_one_line(in_memory, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("no\n  access")

    monkeypatch.setattr(in_memory, "info", refused)
    monkeypatch.setattr(in_memory, "exists", refused)
    monkeypatch.setattr(in_memory, "_open", refused)
    with pytest.raises(
        UserError, match=r"gs://bucket/run cannot be read \(RuntimeError: no access\)"
    ):
        paths.reachable("gs://bucket/run")
    with pytest.raises(OSError, match="RuntimeError: no access"):
        paths.write_bytes(paths.parse("gs://bucket/run"), b"")
