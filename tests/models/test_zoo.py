"""The data that the models train on."""

from __future__ import annotations

import pytest

from tests.models.zoo import FASHION, images


@pytest.mark.skipif(not FASHION.exists(), reason="dataset-fashion-mnist is not installed: the models train on digits")
def test_images_are_fashion_mnist() -> None:
    """Its test set begins with an ankle boot, a pullover and two trousers, dark around."""
    pixels, classes = images()
    assert classes[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert pixels.shape == (2000, 3, 32, 32)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert (pixels[:, :, :2] == -1).all()
    assert classes.bincount().min() > 150
