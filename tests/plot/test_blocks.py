"""Labels of the blocks of a vector."""

from __future__ import annotations

import numpy as np

import jtree
from jtree.plot import hessian, parameters
from jtree.plot._blocks import label_blocks

from .figures import labels_of


def test_a_tied_parameter_is_marked() -> None:
    w = np.ones(3)
    _, re = jtree.destructure({"a": w, "b": w, "c": w}, ties=[("a", "b")])
    assert [block.label for block in label_blocks(re, 9)] == ["a (tied)", "c"]


def test_a_model_that_is_one_array_has_a_label() -> None:
    assert [x.label for x in label_blocks(jtree.destructure(np.ones(2))[1], 9)] == ["(root)"]


def test_parameters_without_elements_are_left_out() -> None:
    _, re = jtree.destructure({"a": np.ones(2), "b": np.ones((0, 3))})
    assert [tuple(x) for x in label_blocks(re, 9)] == [("a", 0, 2)]


def test_too_many_parameters_are_grouped_by_their_deepest_nodes() -> None:
    names = [f"net/{k}/{part}/w" for k in range(3) for part in "ab"] + ["out"]
    re = labels_of(names)
    assert [x.label for x in label_blocks(re, 7)] == names
    grouped = label_blocks(re, 6)
    assert [x.label for x in grouped] == ["net/0/**", "net/1/**", "net/2/**", "out"]
    assert [(x.start, x.stop) for x in grouped] == [(0, 4), (4, 8), (8, 12), (12, 14)]
    assert [x.label for x in label_blocks(re, 3)] == ["net/**", "out"]


def test_too_many_children_of_the_root_are_merged() -> None:
    blocks = label_blocks(labels_of([f"p{k}" for k in range(10, 20)]), 4)
    assert [x.label for x in blocks] == ["p10 to p12", "p13 to p15", "p16 to p18", "p19"]
    assert blocks[-1].stop == 20


def test_labels_of_merged_blocks_differ() -> None:
    names = [f"block_{k}/a_long_name_{j}/kernel" for k in range(20, 60) for j in range(2)]
    blocks = [x.label for x in label_blocks(labels_of(names), 36)]
    assert blocks[:2] == ["block_20 to block_21", "block_22 to block_23"]
    assert len(set(blocks)) == len(blocks) == 20


def test_one_parameter_is_singular() -> None:
    flat, re = jtree.destructure({"w": np.ones(1)})
    assert parameters(flat, re).get_suptitle() == "1 parameter"
    assert hessian(np.ones((1, 1)), re=re).get_suptitle() == "Matrix over 1 parameter"


def test_a_long_path_loses_its_middle() -> None:
    (block,) = label_blocks(labels_of(["encoder/layers/12/attention/query/kernel"]), 1)
    assert block.label == "encoder/l…ntion/query/kernel"
    assert len(block.label) == 28
