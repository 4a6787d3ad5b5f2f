"""Handwritten digits: 1797 images of 8 x 8 pixels, the one real data set that comes with the book.

From *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
CC BY 4.0), as distributed by scikit-learn. data/README.md is its card.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlbook.book import data
from nlbook.errors import generator, need


class Digits(NamedTuple):
    """A split: images in [0, 1] as rows of 64 pixels, labels 0..9."""

    x_train: Tensor  # (n_train, 64) float32
    y_train: Tensor  # (n_train,) int64
    x_test: Tensor  # (n_test, 64) float32
    y_test: Tensor  # (n_test,) int64


def load_digits(seed: int = 0, test: float = 0.2) -> Digits:
    """The digits, shuffled by `seed` and split; `test` is the share that is held out.

    The file's checksum is verified first. Reshape a row with `.view(8, 8)` to see the image. The same people wrote both
    parts, so the held-out accuracy is not that of a new writer.

    >>> load_digits().x_train.shape
    torch.Size([1438, 64])
    """
    need(0 < test < 1, "test", test, "a share in (0, 1)")
    with np.load(data.path("digits.npz")) as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    order = torch.randperm(len(labels), generator=generator(seed))
    x, y = images[order].float() / 16, labels[order].long()
    n = round(len(y) * (1 - test))
    return Digits(x[:n], y[:n], x[n:], y[n:])
