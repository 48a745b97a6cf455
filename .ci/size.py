"""Print lines of code by folder: `size.py [commit]`. Without a commit: the files as they are now, if git knows them."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PRODUCT = ("botproject", "channels_ingest", "conversations")


def main(commit: str = "") -> None:
    lines: dict[str, Counter[str]] = {kind: Counter() for kind in ("product", "SQL and Lua", "tests", "bench")}
    for path, text in in_commit(commit) if commit else in_worktree():
        if kind := kind_of(path):
            folders = path.parent.parts
            lines[kind]["/".join(folders[: 3 if "adapters" in folders else 2])] += text.count(b"\n")
    for kind, folders in lines.items():
        for folder, count in sorted(folders.items()):
            print(f"{count:>8,}  {folder}")
        print(f"{folders.total():>8,}  {kind}, in all\n")


def kind_of(path: Path) -> str:
    """What a file counts as; an empty string: it does not count."""
    if path.suffix in (".sql", ".lua"):
        return "SQL and Lua" if path.parts[0] in PRODUCT else ""
    if path.suffix != ".py":
        return ""
    return "product" if path.parts[0] in PRODUCT else path.parts[0] if path.parts[0] in ("tests", "bench") else ""


def in_worktree() -> Iterator[tuple[Path, bytes]]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (path := Path(name)).is_file():
            yield path, path.read_bytes()


def in_commit(commit: str) -> Iterator[tuple[Path, bytes]]:
    archive = subprocess.run(["git", "archive", commit], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            if member.isfile() and (file := files.extractfile(member)):
                yield Path(member.name), file.read()


if __name__ == "__main__":
    main(*sys.argv[1:2])
