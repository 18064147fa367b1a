"""Where in an image the anomaly is
================================

Where in an image the anomaly is: maps of the reconstruction error.

Digits of 8 x 8 pixels train; test digits get a defect, an inverted square. Maps and defects are
compared pixel by pixel.
"""

from importlib.util import find_spec

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from deepod import AutoEncoder

SIZE = 2  # of a defect, in pixels


def with_defects(images, rng):
    """Invert a square of each image, and say where it is."""
    images, masks = images.copy(), np.zeros((len(images), *images.shape[2:]), bool)
    for image, mask in zip(images, masks, strict=True):
        row, column = rng.integers(0, image.shape[-1] - SIZE + 1, 2)
        square = slice(row, row + SIZE), slice(column, column + SIZE)
        image[0][square] = 16 - image[0][square]
        mask[square] = True
    return images, masks


def main(epochs="auto"):
    rng = np.random.default_rng(0)
    images = rng.permutation(load_digits().images)[:, None]  # (1797, 1, 8, 8), from 0 to 16
    train, test = images[:1400], images[1400:]
    defective, masks = with_defects(test, rng)

    detector = AutoEncoder(latent_dim=16, epochs=epochs, random_state=0).fit(train)
    scores = detector.decision_function(np.concatenate([test, defective]))
    maps = detector.score_map(defective)  # (n, 8, 8)
    images_auc = roc_auc_score(np.repeat([0, 1], len(test)), scores)
    pixels_auc = roc_auc_score(masks.ravel(), maps.ravel())
    print(f"AUC-ROC of images {images_auc:.3f}, of pixels {pixels_auc:.3f}")
    draw(defective, maps, masks)
    return pixels_auc


def draw(defective, maps, masks):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt
    from matplotlib import patches

    axes = plt.figure(figsize=(8, 4), layout="constrained").subplots(2, 6)
    for (above, below), image, map_, mask in zip(axes.T, defective, maps, masks, strict=False):
        corner = np.argwhere(mask)[0][::-1] - 0.5
        above.imshow(image[0], cmap="gray")
        below.imshow(map_, cmap="magma")
        for ax in (above, below):
            ax.add_patch(patches.Rectangle(corner, SIZE, SIZE, fill=False, edgecolor="tab:red"))
            ax.axis("off")
    plt.show()  # digits with defects, outlined in red, and their maps


if __name__ == "__main__":
    main()
