"""The picture of the layers in CONTRIBUTING.md, and the commands that it names."""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path

from .source import ROOT, folder, imports, modules

PAGE = (ROOT.parent / "CONTRIBUTING.md").read_text()
LOWEST = {
    "_errors",
    "_text",
    "_progress",
    "_public",
    "_arguments",
    "_extras",
}  # one node in the picture
NOT_DRAWN = {"__init__", "__main__", "_api"}  # the package itself, above all others
HELPERS = {"_initialiser": "init", "_callbacks": "callbacks"}


def node(module: str) -> str:
    """Return the node of the picture that a module belongs to."""
    name = HELPERS.get(folder(module), folder(module))
    return "lowest" if name in LOWEST else name


def drawn() -> set[tuple[str, str]]:
    """Return the arrows of the picture."""
    picture = PAGE.split("flowchart TD\n")[1].split("```")[0]
    labels = dict(re.findall(r'(\w+)\["(.*?)"\]', picture))
    lines = re.sub(r'\[".*?"\]', "", picture).splitlines()
    rows = [[row.strip().split(" & ") for row in line.split("-->")] for line in lines]
    pairs = {
        pair for line in rows for above, below in pairwise(line) for pair in product(above, below)
    }
    return {(labels.get(x, x), labels.get(y, y)) for x, y in pairs}


def below(name: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Return a node and all that arrows lead to from it."""
    return {name}.union(*(below(y, arrows) for x, y in arrows if x == name))


def test_the_picture_of_the_layers_is_that_of_the_imports() -> None:
    arrows = {(x, "lowest" if y.startswith("_errors") else y) for x, y in drawn()}
    edges = {(node(x), node(y)) for x in modules() for y in imports(x)[0]}
    edges = {(x, y) for x, y in edges if x != y and not {x, y} & NOT_DRAWN}
    assert not {(x, y) for x, y in edges if y not in below(x, arrows)}
    above = {(x, Path(y).parts[0]) for x, y in edges}
    assert arrows <= edges | above


def test_the_files_and_folders_that_are_named_exist() -> None:
    names = set(re.findall(r"`((?:jtree|tests|benchmarks|\.ci)/[\w/.]*)`", PAGE))
    assert len(names) > 10
    assert not {x for x in names if not (ROOT.parent / x).exists()}
