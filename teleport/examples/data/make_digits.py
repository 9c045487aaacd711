"""Writes `digits.npy` and `digits_labels.npy`, the real input of the example `digits`.

The images come with scikit-learn, so nothing is downloaded when this runs:

    python3 -m venv /tmp/digits
    /tmp/digits/bin/pip install scikit-learn numpy
    /tmp/digits/bin/python teleport/examples/data/make_digits.py

A second run writes the same bytes. `README.md` beside this file states source and licence.
"""

import pathlib

import numpy as np
from sklearn.datasets import load_digits

FOLDER = pathlib.Path(__file__).resolve().parent


def main():
    digits = load_digits()
    # scikit-learn hands out float64, though every pixel is an integer from 0 to 16.
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    assert np.array_equal(images, digits.images)
    assert np.array_equal(labels, digits.target)
    assert images.shape == (1797, 8, 8) and images.max() == 16
    assert labels.shape == (1797,) and set(labels) == set(range(10))
    for name, array in (("digits", images), ("digits_labels", labels)):
        path = FOLDER / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        print(f"{path.name}: {array.dtype} {list(array.shape)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
