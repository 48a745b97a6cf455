"""Print lines by folder: `size.py [commit]`. Without a commit: the files as they are now, if git knows them.

The first column counts all lines; the second, for Python, leaves out blank lines, comments and docstrings.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PRODUCT = ("botproject", "channels_ingest", "conversations")


def main(commit: str = "") -> None:
    lines: dict[str, Counter[str]] = {kind: Counter() for kind in ("product", "SQL and Lua", "tests", "bench")}
    code: Counter[tuple[str, str]] = Counter()
    for path, text in in_commit(commit) if commit else in_worktree():
        if kind := kind_of(path):
            folders = path.parent.parts
            folder = "/".join(folders[: 3 if "adapters" in folders else 2])
            lines[kind][folder] += text.count(b"\n")
            code[kind, folder] += code_lines(text) if path.suffix == ".py" else 0
    for kind, counts in lines.items():
        for folder, count in sorted(counts.items()):
            print(row(count, code[kind, folder], folder))
        print(row(counts.total(), sum(code[kind, folder] for folder in counts), f"{kind}, in all\n"))


def row(lines: int, code: int, name: str) -> str:
    return f"{lines:>8,} {f'{code:,}' if code else '':>8}  {name}"


def kind_of(path: Path) -> str:
    """What a file counts as; an empty string: it does not count."""
    if path.suffix in (".sql", ".lua"):
        return "SQL and Lua" if path.parts[0] in PRODUCT else ""
    if path.suffix != ".py":
        return ""
    return "product" if path.parts[0] in PRODUCT else path.parts[0] if path.parts[0] in ("tests", "bench") else ""


NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: bytes) -> int:
    """Count the lines of a Python file that hold code: no blank line, comment or docstring."""
    words: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            words.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        if token.type not in NO_CODE and token.type != tokenize.ENCODING:
            found.update(range(token.start[0], token.end[0] + 1))
    return len(found - words)


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
