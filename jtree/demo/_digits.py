"""Handwritten digits: the 1,797 images of 8 by 8 pixels that come with scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

HELD_OUT = 360  # of the 1,797 images


class LabelledImages(NamedTuple):
    """Images, one per row, with pixels from 0 to 1, and the digit in each image."""

    images: jax.Array
    labels: jax.Array


class Digits(NamedTuple):
    """The training images, and the held-out ones."""

    train: LabelledImages
    held_out: LabelledImages


def load(seed: int) -> Digits:
    """Return the images in an order that depends on the seed. The last ones are held out."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(labels))
    train, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    return Digits(_take(images, labels, train), _take(images, labels, held_out))


def _take(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> LabelledImages:
    return LabelledImages(jnp.asarray(images[rows]), jnp.asarray(labels[rows]))


def coarse(split: LabelledImages) -> LabelledImages:
    """Return the same images at 4 by 4 pixels, each the mean of four."""
    images = split.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return split._replace(images=images)
