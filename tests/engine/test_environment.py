"""What a run depends on, as words."""

import subprocess

import torch

from retina_plugin.engine.environment import environment, git_commit


def test_names_what_runs():
    found = environment()
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert all(isinstance(value, str) and value for value in found.values())


def test_commit_of_a_checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    commit = git_commit(tmp_path)
    assert git("rev-parse", "HEAD").startswith(commit)
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_no_checkout_is_no_failure(tmp_path):
    assert git_commit(tmp_path) == "unknown"
