"""A method of your own
====================

A method of one's own: a denoising autoencoder, whole.

Vincent et al., Extracting and Composing Robust Features with Denoising Autoencoders, ICML 2008:
reconstruct the clean row from a corrupted one. What is written here is all it takes: validation,
scaling, devices, seeds, training, thresholds, grid search and pickling come with the base class.
"""

from importlib.util import find_spec

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from torch import nn

from deepod import BaseDetector
from deepod.params import integer, param, parameters, real
from deepod.plotting import plot_scores


@parameters
class DAE(BaseDetector):
    """Denoising autoencoder: the score is the squared error of the reconstruction."""

    latent_dim: int = param(default=8, accepts=[integer(1)], doc="Length of the code.")
    sigma: float = param(default=0.2, accepts=[real(0)], doc="Standard deviation of the noise.")

    def _build_module(self, shape):
        network = self._network(shape)
        return nn.Sequential(
            network.encoder(shape, self.latent_dim), network.decoder(self.latent_dim, shape)
        )

    def _noise(self, n, shape, generator):
        return torch.randn(n, *shape, generator=generator, device=generator.device)

    def _loss(self, module, batch):
        error = module(batch.x + self.sigma * batch.noise) - batch.x
        return {"reconstruction": error.square().mean()}

    def _score(self, module, x):
        return (module(x) - x).square().flatten(1).mean(1)


def draw(scores, y, threshold):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(8, 3), layout="constrained").subplots()
    plot_scores(np.log10(scores), y, threshold=np.log10(threshold), ax=axes)
    axes.set_xlabel("log10 of the anomaly score")
    plt.show()


def main(epochs="auto"):
    X, benign = load_breast_cancer(return_X_y=True)
    normal, malignant = X[benign == 1], X[benign == 0]
    train, test = normal[:180], np.concatenate([normal[180:], malignant])
    y = np.repeat([0, 1], [len(normal) - 180, len(malignant)])

    detector = DAE(epochs=epochs, random_state=0).fit(train)
    scores = detector.decision_function(test)
    auc = roc_auc_score(y, scores)
    print(f"DAE on breast cancer: AUC-ROC {auc:.3f}")
    draw(scores, y, detector.threshold_)
    return auc


if __name__ == "__main__":
    main()
