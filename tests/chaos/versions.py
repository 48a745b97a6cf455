"""The version before the newest migration, as a folder that processes can run from: two real versions in one deploy."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.kit.stack import ROOT

MIGRATIONS = ":(glob)**/migrations/[0-9]*.py"
SCHEMAS = ":(glob)conversations/**/*schema.sql"  # what the first migrations run


def git(*words: str) -> str:
    """What git says; '' where it fails or is not there."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def before() -> str:
    """The commit before the newest one that added a migration; ''."""
    newest = git("log", "-1", "--diff-filter=A", "--format=%H", "--", MIGRATIONS)
    return git("rev-parse", "--verify", "--quiet", f"{newest}^") if newest else ""


@functools.cache
def none_before() -> str:
    """Why there is no version to begin with; '' when there is."""
    commit = before()
    if not commit:
        return "there is no git history that reaches back before the newest migration"
    there = git("ls-tree", "-r", "--name-only", commit).splitlines()
    changed = git("diff", "-Isafe_because", "--name-only", commit, "--", MIGRATIONS, SCHEMAS).splitlines()
    rewritten = [name for name in changed if name in there]
    if rewritten:
        why = "migrations of before were changed, which only happens before a first release"
        return f"since {commit[:7]}, {why}: {', '.join(rewritten)}"
    return ""


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The product as it was, with today's checker beside it."""
    with tempfile.TemporaryDirectory(prefix="version-") as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        shutil.rmtree(Path(folder) / "tests", ignore_errors=True)
        shutil.copytree(ROOT / "tests", Path(folder) / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        yield Path(folder)
