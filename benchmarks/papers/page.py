"""The page of what papers print and what we get.

``python -m benchmarks.papers.page > docs/papers.md``. It is made of the files beside this one and
of committed results alone; nothing is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmarks.papers.__main__ import METRICS, Section, _at, _printed, papers, read
from deepod.bench.reporting.tables import pipe_table

RESULTS = Path(__file__).resolve().parents[1] / "results"
FILES = ("papers*.jsonl", "plad_fashion_mnist.jsonl", "images_*.jsonl")

INTRO = """\
# The papers' tables: what is printed, and what we get

Made by `python -m benchmarks.papers.page > docs/papers.md` from `benchmarks/papers/*.toml` (the
papers' settings and figures) and from results in `benchmarks/results/` ({files});
a test compares. Each setting is run by `python -m benchmarks.papers NAME --out results.jsonl`, at
full size unless `--max-train` and `--max-test` say otherwise; a run that was stopped goes on where
it was, on a GPU if there is one. All figures are percent: mean ± standard deviation over the
seeds. The numbers of rows that ours were trained and tested on stand beside them: **most of ours
are of far fewer rows and of one seed**, and none of ours was chosen by test labels, as several of
the printed ones were. "By default" is the detector without parameters, of images on 1,000 of
a class ([the benchmarks](../benchmarks/README.md#images)); it mostly is another network, and was
never meant to repeat a paper. Settings with "not run" train convolutional networks for up to
hundreds of epochs, which takes minutes to hours for each class on a processor.
"""

# Names of rows in the papers' tables, and where each method is here.
ROWS = {
    "OCSVM": "`pyod.models.ocsvm.OCSVM`, `sklearn.svm.OneClassSVM`",
    "KDE": "`pyod.models.kde.KDE` behind `sklearn.decomposition.PCA(0.95)` in a `Pipeline`",
    "IF": "`pyod.models.iforest.IForest`, `sklearn.ensemble.IsolationForest`",
    "LOF": "`pyod.models.lof.LOF`, `sklearn.neighbors.LocalOutlierFactor`",
    "CAE": "`AutoEncoder` with `network=LeNet(...)`",
    "DAE": "`DAE`",
    "VAE": "`VAE`",
    "AnoGAN": "`AnoGAN`",
    "GAN": "not here: the discriminator of `AnoGAN`, alone",
    "ADGAN": "`ADGAN`",
    "OCGAN": "`OCGAN`",
    "DSVDD": "`DeepSVDD`",
    "Deep SVDD": '`DeepSVDD`, (s) with `objective="soft"`',
    "IAEAD": '`IAEAD`, (s) with `objective="soft"`',
    "MemAE": "`MemAE`",
    "Gaussian AD": "`GaussianAD`",
    "LSA": "`LSA`",
    "AND": "`LSA`, under another name",
    "DAGMM": "`DAGMM`",
    "DSEBM": "`DSEBM`",
    "Pix CNN": "`PixelCNN`",
    "GEOM": '`GEOM`; GEOM- with `likelihood="softmax"`',
    "GOAD": "`GOAD`",
    "GOCC": "`ICL`, as its authors call it",
    "NeuTraL AD": "`NeuTraL`",
    "DROCC": "`DROCC`",
    "HRN": "`HRN`; HRN-L2 with `power=2`",
    "IGD": "`IGD`",
    "SCADN": "`SCADN`",
    "TQM": "`TQM`",
    "DCN": "`DCN`",
    "E2E-AE": "`E2EAE`",
    "autoencoder only": "`NSAE(novelty_weight=0, normalize=None)`",
    "+ Normalization": "`NSAE(novelty_weight=0)`",
    "DSVDD-KL": "`IAELSTMKL(gate=None, use_decoder=False)`",
    "DLSVDD": "`IAELSTMKL(kl=None, use_decoder=False)`; DLSVDD-KL with `kl`",
    "IAE-KL": "`IAELSTMKL(gate=None)`",
    "IAE-LSTM": "`IAELSTMKL(kl=None)`",
    "IAE-LSTM-KL without": "`IAELSTMKL(gates=...)`: gates that are not named are 1",
    "NB": "`sklearn.naive_bayes.GaussianNB`",
    "SVM": "`sklearn.svm.SVC`",
    "MLP": "`sklearn.neural_network.MLPClassifier`",
    "RF": "`sklearn.ensemble.RandomForestClassifier`",
    "LGB": "the package LightGBM",
    "XGB": "the package XGBoost; XGBOD is `pyod.models.xgbod.XGBOD`",
    "CatB": "the package CatBoost",
    "DevNet": "`pyod.models.devnet.DevNet`",
    "DeepSAD": "not here",
    "FEAWAD": "not here",
    "FTTransformer": "not here",
    "PReNet": "not here",
    "REPEN": "not here",
    "ResNet": "not here",
}

RECIPES = """\
The shallow ones are PyOD's and scikit-learn's, with the settings that the papers quote:

```python
from pyod.models.kde import KDE
from pyod.models.ocsvm import OCSVM
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

kde = make_pipeline(MinMaxScaler(), PCA(0.95), KDE(bandwidth=1.0))
ocsvm = make_pipeline(StandardScaler(), OCSVM(nu=0.1))
kde.fit(X_train).decision_function(X_test)
```

Several papers tune the bandwidth of KDE (2^0.5 to 2^5), and nu and gamma of OCSVM, on the test
labels; their printed figures are of that."""


class Found(NamedTuple):
    """Results of one detector under one cap: figures by dataset, and the rows they are of."""

    label: str
    values: dict[str, list[float]]
    rows: tuple[int, int]  # to train on, in the first dataset; to test on
    seeds: int


def results() -> list[dict[str, Any]]:
    """Read the committed results, without errors."""
    files = [path for pattern in FILES for path in sorted(RESULTS.glob(pattern))]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in map(json.loads, lines) if "error" not in row]


def found_for(section: Section, rows: Iterable[dict[str, Any]]) -> list[Found]:
    """Gather what was measured for a section: its setting and variants, the default, and others."""
    paper = section.paper
    wanted = paper["datasets"]
    groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in rows:
        name = row["dataset"].partition("_")
        known = row["dataset"] in wanted or (name[0].isdigit() and name[2] in wanted)
        variant = row["detector"].startswith(f"{section.detector}-")
        ours = row["detector"] in (section.detector, section.default) or variant
        beside = row["detector"].partition(":")[0] in ("pyod", "benchmarks.reference")
        if known and row["protocol"] == paper["protocol"] and (ours or beside):
            groups.setdefault((row["detector"], row["max_train"]), []).append(row)
    caps = {cap for detector, cap in groups if detector in (section.detector, section.default)}
    found = []
    for (detector, cap), own in groups.items():
        if cap not in caps:  # peers of another section's run
            continue
        values: dict[str, list[float]] = {}
        for row in own:
            name = next(
                n for n in wanted if row["dataset"] == n or row["dataset"].endswith(f"_{n}")
            )
            values.setdefault(name, []).append(100 * row[paper["metric"]])
        label = {section.detector: "here, this setting", section.default: "here, by default"}
        if detector.startswith(f"{section.detector}-"):
            label.setdefault(detector, f"here, `{detector.rpartition(':')[2]}`")
        first = own[0]
        found.append(
            Found(
                label.get(detector, detector.removeprefix("pyod:").removeprefix("benchmarks.")),
                values,
                (first["n_train"], first["n_test"]),
                max(map(len, values.values())),
            )
        )
    order = ["here, this setting", "here, by default"]
    return sorted(found, key=lambda f: (order.index(f.label) if f.label in order else 2, f.label))


def table(section: Section, found: Sequence[Found]) -> str:
    """Write printed figures above ours, datasets side by side."""
    paper = section.paper
    names, many = paper["datasets"], len(paper["datasets"]) > 1
    base = names[0].partition(":")[0]
    short = [n.removeprefix(f"{base}:") for n in names] if many else names
    head = ["", *short, *(["mean"] if many else []), "rows", "seeds"]
    published = paper["published"]
    printed = ["*printed*", *(_printed(*_at(published, i)) for i in range(len(names)))]
    printed += [_printed(published.get("mean", math.nan))] if many else []
    lines = [head, [*printed, "", str(paper.get("runs", ""))]]
    for own in found:
        cells = [_spread(own.values.get(name, [])) for name in names]
        whole = all(name in own.values for name in names)
        mean = f"{fmean(fmean(v) for v in own.values.values()):.1f}" if whole else ""
        size = f"{own.rows[0]:,} / {own.rows[1]:,}"
        lines.append([own.label, *cells, *([mean] if many else []), size, str(own.seeds)])
    return pipe_table(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def overview(sections: Sequence[tuple[Section, Sequence[Found]]]) -> str:
    """Write one line for each table of a paper."""
    head = ["method", "setting", "printed in", "data", "metric", "printed", "here", "rows"]
    lines = [[*head, "by default", "rows"]]
    for section, found in sections:
        paper, names = section.paper, section.paper["datasets"]
        data = ", ".join(dict.fromkeys(name.partition(":")[0] for name in names))
        published = paper["published"]
        each = published.get("each", [math.nan] * len(names))
        mean = published.get("mean", fmean(each))
        own = next((f for f in found if f.label == "here, this setting"), None)
        here, size, of = "not run", "", ""
        if own is not None:
            run = [i for i, name in enumerate(names) if name in own.values]
            part = ""
            if len(run) < len(names):  # beside what is printed for these
                part = f" ({len(run)} of {len(names)})"
                these = fmean(each[i] for i in run)
                mean, of = (mean, " (of all)") if math.isnan(these) else (these, "")
            here = f"{fmean(fmean(own.values[names[i]]) for i in run):.1f}{part}"
            size = f"{own.rows[0]:,}"
        metric = METRICS[paper["metric"]]
        setting = f"{Path(section.file).stem}: {section.name}"
        where = [f"`{section.spec['detector']}`", setting, paper["source"], data, metric]
        lines.append([*where, f"{mean:.1f}{of}", here, size, *_by_default(found, names)])
    return pipe_table(lines, text=range(5))


def _by_default(found: Sequence[Found], names: Sequence[str]) -> list[str]:
    """Write the mean of the default, and its rows; nothing if a dataset is missing."""
    for own in found:
        if own.label == "here, by default" and all(name in own.values for name in names):
            return [f"{fmean(fmean(own.values[n]) for n in names):.1f}", f"{own.rows[0]:,}"]
    return ["", ""]


def page() -> str:
    """Write the whole page."""
    rows = results()
    sections = [s for paper in papers() for s in read(paper) if s.paper]
    both = [(section, found_for(section, rows)) for section in sections]
    files = ", ".join(f"`{pattern}`" for pattern in FILES)
    parts = [INTRO.format(files=files), "## All of them", overview(both)]
    parts.append("## Where each row of the papers' tables is here")
    parts += [pipe_table([["printed as", "here"], *ROWS.items()], text=(0, 1)), RECIPES]
    for section, found in both:
        paper = section.paper
        setting = f"{Path(section.file).stem}: {section.name}"
        parts.append(f"## `{section.spec['detector']}`, {setting}")
        parts.append(
            f"{paper['source']}; {METRICS[paper['metric']]}, protocol `{paper['protocol']}`."
        )
        parts.append(table(section, found))
        if "why" in paper:
            parts.append(f"**Why they differ.** {paper['why']}")
        for title, key in (("Not the published setting", "departs"), ("Not stated", "unstated")):
            if paper.get(key):
                parts.append(f"{title}: " + "; ".join(paper[key]) + ".")
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
