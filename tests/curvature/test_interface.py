"""The signatures of curvature and plots: positions, keywords, names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from jtree import curvature as C  # noqa: N812
from jtree import plot

FUNCTIONS = [
    function
    for module in (C, plot)
    for function in map(vars(module).get, module.__all__)
    if inspect.isfunction(function)
]


@pytest.mark.parametrize(
    ("function", "count", "names"),
    [
        (C.fisher, 4, ["y"]),
        (C.batched, 2, ["make"]),
        (C.eigsh, 3, ["k", "which"]),
        (C.diagonal, 2, ["method"]),
        (plot.spectrum, 2, ["weights"]),
        (plot.landscape, 4, ["re", "directions"]),
        (plot.parameters, 2, ["re"]),
    ],
)
def test_arguments_by_position_or_by_name(
    function: Callable[..., Any], count: int, names: list[str]
) -> None:
    signature = inspect.signature(function)
    signature.bind(*range(count))
    before = list(signature.parameters)[:count]
    signature.bind(*(0 for name in before if name not in names), **dict.fromkeys(names))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_keys_and_optional_labels_are_keywords_and_the_vector_comes_first(
    function: Callable[..., Any],
) -> None:
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    if "key" in names:
        assert parameters["key"].kind is inspect.Parameter.KEYWORD_ONLY
    if "re" in names and parameters["re"].default is None:
        assert parameters["re"].kind is inspect.Parameter.KEYWORD_ONLY
    if "re" in names and "flat" in names:
        assert names.index("flat") < names.index("re")


def test_every_function_has_an_example() -> None:
    for function in FUNCTIONS:
        assert ">>> " in (inspect.getdoc(function) or ""), function.__name__
