"""Score without torch and deepod
==============================

Score where there is neither torch nor deepod: an ONNX file has everything inside.

The machine that trains needs ``pip install "deepod[onnx]"``; the one that scores needs onnxruntime
(Python, C, C++, C#, Java, JavaScript) or another runtime, and rows in the units of the training
data. Scaling and threshold are part of the file.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.datasets import load_breast_cancer

from deepod import PLAD, onnx


def draw(ours, scores, labels):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(5, 4), layout="constrained").subplots()
    axes.scatter(ours, scores, c=labels, s=12, cmap="coolwarm")
    axes.set(xlabel="decision_function", ylabel="onnxruntime", title="flagged rows in red")
    plt.show()


def main(epochs="auto"):
    X, benign = load_breast_cancer(return_X_y=True)
    detector = PLAD(epochs=epochs, random_state=0).fit(X[benign == 1][:200])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plad.onnx"
        onnx.export(detector, path)
        session = onnxruntime.InferenceSession(path)
        size = path.stat().st_size

    scores, labels = session.run(None, {"X": X})  # any number of rows
    name = session.get_modelmeta().custom_metadata_map["detector"]
    malignant, healthy = labels[benign == 0].mean(), labels[benign == 1].mean()
    print(f"{name} in {size / 1024:.0f} KiB")
    print(f"flagged: {malignant:.0%} of malignant, {healthy:.0%} of benign tumours")
    ours = detector.decision_function(X)
    difference = np.abs(scores - ours).max()
    print(f"largest difference from decision_function: {difference:.1e}")
    draw(ours, scores, labels)
    return difference


if __name__ == "__main__":
    main()
