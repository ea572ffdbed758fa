"""Provenance: the commit of the library's own source."""

import shutil
import subprocess

import pytest

from at_jax.training.files import provenance


def git(folder, *arguments):
    names = ["-c", "user.name=x", "-c", "user.email=x@y"]
    command = ["git", "-C", folder, *names, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commit_is_that_of_a_repository_that_tracks_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    (tmp_path / "provenance.py").touch()
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "another project")
    assert provenance.commit() == ""  # as in its .venv
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "the library")
    commit = provenance.commit()
    assert commit and git(tmp_path, "rev-parse", "HEAD").startswith(commit)
    (tmp_path / "provenance.py").write_text("changed")
    assert provenance.commit() == f"{commit}-dirty"
