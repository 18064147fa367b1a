"""A table as it comes, and reasons by column names
================================================

A table as it comes: numbers with gaps and categories, and the reasons by column names.

``set_output(transform="pandas")`` keeps the names through the ColumnTransformer, so that the
detector and its explanations have them. A category that was not there in ``fit`` becomes zeros.
"""

from importlib.util import find_spec

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from deepod import PLAD
from deepod.plotting import plot_contributions


def payments(n, rng):
    """Card payments: amounts depend on the kind of shop."""
    shop = rng.choice(["grocer", "fuel", "jeweller"], n, p=[0.6, 0.3, 0.1])
    typical = pd.Series(shop).map({"grocer": 30, "fuel": 60, "jeweller": 400}).to_numpy()
    frame = pd.DataFrame(
        {
            "amount": typical * rng.lognormal(0, 0.3, n),
            "hour": rng.normal(14, 3, n),
            "age": rng.normal(45, 12, n),
            "shop": shop,
        }
    )
    return frame.mask(rng.random(frame.shape) < [0, 0, 0.1, 0])  # gaps in age


def draw(reasons):
    if find_spec("matplotlib") is None:
        print("The picture is left out: pip install matplotlib")
        return
    import matplotlib.pyplot as plt

    axes = plt.figure(figsize=(7, 3), layout="constrained").subplots()
    plot_contributions(reasons.to_numpy(), feature_names=list(reasons.index), ax=axes)
    plt.show()


def main(epochs="auto"):
    rng = np.random.default_rng(0)
    train, new = payments(1000, rng), payments(200, rng)
    new.loc[7, ["amount", "hour", "shop"]] = [390.0, 3.0, "fuel"]  # odd for fuel, at night

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encode = ColumnTransformer(
        [("numbers", numbers, ["amount", "hour", "age"]), ("categories", categories, ["shop"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    detector = PLAD(scaler=None, epochs=epochs, random_state=0)
    pipeline = make_pipeline(encode, detector).fit(train)

    scores = pd.Series(pipeline.decision_function(new), index=new.index)
    top = scores.idxmax()
    print(f"top row: {top}, score {scores[top]:.3f}, median {scores.median():.3f}")
    print(new.loc[[top]].to_string())
    reasons = pd.Series(
        detector.explain(encode.transform(new.loc[[top]]))[0], index=detector.feature_names_in_
    )
    print(reasons.sort_values(ascending=False).round(3).to_string())
    draw(reasons)
    return reasons


if __name__ == "__main__":
    main()
