"""`make graph`: which folder of the core imports which, layer by layer, from the top down.

The layers are those of import-linter's contract in `pyproject.toml`. Ends with 1 when an arrow points upwards.
"""

from __future__ import annotations

import collections
import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
CORE = "conversations"

Arrows = dict[str, collections.Counter[str]]


def main() -> int:
    layers = read_layers()
    height = {name: len(layers) - place for place, layer in enumerate(layers) for name in layer}
    arrows = read_arrows()
    upwards = 0
    for layer in layers:
        print(f"\n{height[layer[0]]}  {'  '.join(layer)}")
        for name in layer:
            targets = sorted(arrows[name], key=lambda target: (-height[target], target))
            wrong = [target for target in targets if height[target] > height[name]]
            upwards += len(wrong)
            words = [f"{target} {arrows[name][target]}{' UPWARDS' * (target in wrong)}" for target in targets]
            print(f"   {name:>14} -> {', '.join(words) or 'nothing of the core'}")
    count = sum(len(targets) for targets in arrows.values())
    print(f"\n{len(height)} folders and files on {len(layers)} layers, {count} arrows, {upwards} of them upwards.")
    return 1 if upwards else 0


def read_layers() -> list[list[str]]:
    """The names on each layer, the highest first."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [each for each in linter["contracts"] if each["type"] == "layers"]
    return [layer.replace("|", ":").replace(":", " ").split() for layer in contract["layers"]]


def read_arrows() -> Arrows:
    """How many imports go from each folder (or file) of the core to each other one."""
    sys.path.insert(0, str(ROOT))
    graph = grimp.build_graph(CORE, cache_dir=None)
    arrows: Arrows = collections.defaultdict(collections.Counter)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            here, there = module.split(".")[1:2], imported.split(".")[1:2]
            if here and there and here != there:
                arrows[here[0]][there[0]] += 1
    return arrows


if __name__ == "__main__":
    sys.exit(main())
