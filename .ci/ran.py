"""Fail when tests that must run were skipped or absent: `ran.py junit.xml`. Silent when all is well."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

PAYLOADS = Path(__file__).resolve().parents[1].parent / "shared" / "payloads"


def main(report: str) -> int:
    ran = [case for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None]
    missing = []
    if not any("browser" in case.get("classname", "") for case in ran):
        missing.append("no browser test ran (tests/browser/)")
    if PAYLOADS.is_dir() and not any(case.get("name", "").startswith("test_shared_payloads") for case in ran):
        missing.append(f"no test_shared_payloads* ran, though {PAYLOADS} is there")
    for problem in missing:
        print(f".ci/run: {problem}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
