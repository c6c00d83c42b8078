"""The source of the package: its modules, their syntax trees, and the imports between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jtree

ROOT = Path(jtree.__file__).parent


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module, by its name without `jtree.`"""
    files = sorted(ROOT.rglob("*.py"))
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


@cache
def syntax(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def folder(name: str) -> str:
    """Return the folder of a module, or its own name if it lies beside the folders."""
    path = modules()[name].relative_to(ROOT).parent
    return str(path) if path.parts else name


@cache
def imports(name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the modules of jtree and the other packages that a module imports, lazily too."""
    inner, outer = set[str](), set[str]()
    for node in ast.walk(syntax(name)):
        if isinstance(node, ast.Import):
            outer |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outer.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            inner |= set(_targets(name, node))
    return frozenset(inner), frozenset(outer)


def _targets(name: str, node: ast.ImportFrom) -> Iterator[str]:
    is_package = modules()[name].name == "__init__.py"
    package = [] if name == "__init__" else name.split(".")[: None if is_package else -1]
    base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
    for alias in node.names:
        module = ".".join(filter(None, [*base, alias.name]))
        yield module if module in modules() else ".".join(filter(None, base)) or "__init__"
