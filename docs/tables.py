"""Tables that stand in the texts but are made elsewhere: of detectors and of measured results.

Each number of such a table stands in one place, the committed file of results that it is computed
from. A table sits between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` in README.md or a
page of docs/; ``tests/test_docs.py`` compares all of them.

    python docs/tables.py           # write all tables anew, after a new detector or new results
    python docs/tables.py --check   # say which ones are not as they would be written
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs import reference  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
PLACES = [ROOT / "README.md", ROOT / "benchmarks/README.md"]
PLACES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(\n<!-- end of table -->)", re.DOTALL)
PYOD = "pyod:"
# What families are called, in the order of the pages; others come after these, as they are.
FAMILIES = {
    "reconstruction": "Reconstruction",
    "one_class": "One-class",
    "density": "Density and distances",
    "perturbation": "Perturbation",
    "self_supervised": "Self-supervised",
    "adversarial": "Adversarial",
}


# --- detectors ------------------------------------------------------------------------------------


def families() -> dict[str, list[Any]]:
    """Group the detectors: of rows by the folder of their family, then others by what they take."""
    rows, *others = reference.kinds().items()
    found: dict[str, list[Any]] = {title: [] for title in FAMILIES.values()}
    for cls in rows[1].values():
        folder = cls.__module__.split(".")[2]
        title = FAMILIES.get(folder, folder.replace("_", " ").capitalize())
        found.setdefault(title, []).append(cls)
    found |= {title: list(classes.values()) for title, classes in others}
    return {title: classes for title, classes in found.items() if classes}


def file_of(cls: type) -> str:
    """Return the file that a class is written in, from the root of the repository."""
    return cls.__module__.replace(".", "/") + ".py"


def summary(cls: type) -> str:
    """Return the first sentence of a docstring."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def anchor(title: str) -> str:
    """Return the anchor that a heading gets, on GitHub and in the pages."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def detectors_in_short() -> str:
    """List the families, with the names of their detectors."""
    lines = [["family", "detectors"], ["---", "---"]]
    for name, classes in families().items():
        family = f"[{name}](docs/detectors.md#{anchor(name)})"
        text = ", ".join(f"`{cls.__name__}`" for cls in classes)
        for part in textwrap.wrap(text, 93 - len(family)):  # lines of at most 100 characters
            lines.append([family, part])
            family = " " * len(family)
    return re.sub(r"\| {5,}\|", "| |", piped(lines))


def detectors_in_full() -> str:
    """List all detectors by family: what each is, what it takes, and its paper."""
    parts = []
    for name, classes in families().items():
        lines = [["detector", "what it is", "takes", "paper"], ["---"] * 4]
        for cls in classes:
            link = f"[`{cls.__name__}`](../{file_of(cls)})"
            takes = ", ".join(getattr(cls, "inputs", ()))
            lines.append([link, summary(cls), takes, getattr(cls, "paper", "")])
        parts.append(f"## {name}\n\n{piped(lines)}")
    return "\n\n".join(parts)


def piped(lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; the second line says how columns are aligned."""
    texts = []
    for line in lines:
        rule = all(re.fullmatch("-+:?", cell) for cell in line)
        texts.append(f"|{'|'.join(line)}|" if rule else f"| {' | '.join(line)} |")
    return "\n".join(text.replace("|  |", "| |") for text in texts)


# --- results --------------------------------------------------------------------------------------


@cache
def rows_of(file: str) -> Any:
    """Read a file of results as a DataFrame."""
    from deepod.bench import read
    from deepod.bench.reporting import tables

    return tables.frame(read(RESULTS / file))


def common(file: str, protocol: str, datasets: Any = None, detectors: Any = None) -> Any:
    """Return the rows of one protocol that all detectors have in common."""
    from deepod.bench.reporting import tables

    rows = rows_of(file)
    rows = rows[rows["protocol"] == protocol]
    if datasets is not None:
        rows = rows[rows["dataset"].isin(datasets)]
    if detectors is not None:
        rows = rows[rows["detector"].isin(detectors)]
    there, missing = tables.split_common(rows)
    if len(missing):
        raise ValueError(f"{file}: {protocol} lacks {len(missing)} cells")
    return there


REFUSED = {
    "benchmarks/consensus.toml:before": "`Consensus` before",
    "benchmarks/consensus.toml:neighbors-forest": "`Consensus`, neighbours and forest",
}
# Settings of a file, and what they are by now.
NOVELTY = "benchmarks/consensus.toml:without-network"
NAMED = REFUSED | {NOVELTY: "`Consensus(novelty=True)`"}


def shown(detector: str, names: dict[str, str] | None = None) -> str:
    """Write the name of a detector as texts have it."""
    names = (names or {}) | NAMED
    if detector in names:
        return names[detector]
    if detector.startswith(PYOD):
        return f"{detector.removeprefix(PYOD)} (PyOD)"
    return f"`{detector}()`"


def percent(value: float) -> str:
    """Write a share in percent with one digit."""
    return f"{100 * value:.1f}"


def means(there: Any, *metrics: str) -> Any:
    """Return means over datasets, of the means over seeds: detectors x metrics."""
    import pandas as pd

    from deepod.bench.reporting import tables

    return pd.DataFrame({m: tables.per_dataset(there, m).mean() for m in metrics})


def ahead(there: Any, of: str) -> dict[str, dict[str, str]]:
    """Return by how much a detector is ahead of each other one, with 95 % intervals."""
    from deepod.bench.reporting import tables

    found: dict[str, dict[str, str]] = {}
    for name, line in tables.differences(there, of).iterrows():
        value, low, high = (100 * line[key] + 0.0 for key in ("difference", "low", "high"))
        text = f"{value:+.1f} [{low:.1f}, {high:.1f}]".replace("-0.0", "0.0").replace("+0.0", "0.0")
        found.setdefault(str(name), {})[line["metric"]] = text
    return found


def oddbench_in_short() -> str:
    """Compare on tables that were kept apart: means, and AUC-ROC ahead of each other detector."""
    lines = [
        ["", "clean: AUC-ROC", "AUC-PR", "lead", "anomalies: AUC-ROC", "AUC-PR", "lead"],
        ["---", *["--:"] * 6],
    ]
    file = "consensus_oddbench.jsonl"
    parts = [common(file, protocol) for protocol in ("one-class", "unsupervised")]
    found = [(means(part, "auc_roc", "auc_pr"), ahead(part, "Consensus")) for part in parts]
    order = found[0][0].sort_values("auc_roc", ascending=False).index
    for name in order.difference(REFUSED, False):
        line = [shown(name)]
        for table, differences in found:
            line += [percent(table.loc[name, "auc_roc"]), percent(table.loc[name, "auc_pr"])]
            line += [differences.get(name, {}).get("AUC-ROC", "")]
        lines.append(line)
    return piped(lines)


def four_methods() -> str:
    """Compare the four methods with PyOD's autoencoder, on the same tables."""
    import pandas as pd

    from deepod.bench.reporting import tables

    names, other = ["PLAD", "AnoRand", "NSAE", "IAELSTMKL"], "pyod:AutoEncoder"
    lines = [["AUC-ROC, AUC-PR", "clean", "minus PyOD's", "anomalies", "minus PyOD's"]]
    lines.append(["---", *["--:"] * 4])
    rows = pd.concat([rows_of("oddbench_methods.jsonl"), rows_of("consensus_oddbench.jsonl")])
    rows = rows[rows["detector"].isin([*names, other])]
    cells: dict[str, list[str]] = {name: [] for name in [*names, other]}
    for protocol in ("one-class", "unsupervised"):
        there, missing = tables.split_common(rows[rows["protocol"] == protocol])
        if len(missing):
            raise ValueError(f"{protocol}: {len(missing)} cells are missing")
        for name, line in means(there, "auc_roc", "auc_pr").iterrows():
            lead = "" if name == other else ", ".join(ahead(there, str(name))[other].values())
            cells[str(name)] += [", ".join(percent(value) for value in line), lead]
    return piped([*lines, *([shown(name), *own] for name, own in cells.items())])


def novelty() -> str:
    """Show by how much ``Consensus(novelty=True)`` is ahead with clean training, by group."""
    parts = {
        "ADBench": common("consensus_adbench.jsonl", "one-class"),
        "OddBench": common("consensus_oddbench.jsonl", "one-class"),
        "wide": common("consensus_wide.jsonl", "one-class"),
    }
    parts["wide"] = parts["wide"][parts["wide"]["dataset"].str.startswith("wide-confirmation/")]
    found = {group: ahead(part, NOVELTY) for group, part in parts.items()}
    names = ("Consensus", "LocalReconstruction", "Neighbors", "pyod:KNN", "pyod:AutoEncoder")
    lines = [[f"{shown(NOVELTY)} minus", *found], ["---", *["--:"] * len(found)]]
    for name in names:
        lines.append([shown(name), *(", ".join(f.get(name, {}).values()) for f in found.values())])
    return piped(lines)


CANDIDATES = {
    "before": "before: `Neighbors()`, `AutoEncoder(suspects=0.3)`; largest tail",
    "mean": "with `LocalReconstruction()`; mean",
    "max": "the same; largest",
    "without-network": "`Neighbors()`, `LocalReconstruction()`; mean",
    "forest-mean": "all three and `IsolationForest()`; mean",
    "forest-max": "**the same; largest**",
    "LocalReconstruction": "`LocalReconstruction()` alone",
    "IsolationForest": "`IsolationForest()` alone",
    "pyod:KNN": "KNN (PyOD)",
}


def choice() -> str:
    """Compare the candidates for the members of ``Consensus`` with what it was before."""
    from benchmarks.adbench import DEVELOPMENT

    names = sections("consensus.toml", CANDIDATES)
    groups = (("ADBench", True), ("OddBench", False))
    lines = [[""], ["---"], *([text] for text in names.values())]
    for group, adbench in groups:
        for protocol, called in (("one-class", "clean"), ("unsupervised", "anomalies")):
            there = rows_of("consensus_choice.jsonl")
            there = there[there["dataset"].isin(DEVELOPMENT) == adbench]
            there = common("consensus_choice.jsonl", protocol, set(there["dataset"]))
            lines[0] += [f"{group}: {called}", "ahead"]
            lines[1] += ["--:", "--:"]
            found, before = means(there, "auc_roc", "auc_pr"), next(iter(names))
            for line, name in zip(lines[2:], names, strict=True):
                line += [", ".join(percent(value) for value in found.loc[name])]
                line += [", ".join(ahead(there, name).get(before, {}).values())]
    return piped(lines)


def consensus(file: str) -> Callable[[], str]:
    """Compare with ``Consensus``, by both metrics and, where it was shown, by ranks."""

    def table() -> str:
        from deepod.bench.reporting import tables

        parts = [common(file, protocol) for protocol in ("one-class", "unsupervised")]
        found = [
            (tables.overview(part, "auc_roc"), means(part, "auc_pr"), ahead(part, "Consensus"))
            for part in parts
        ]
        head = ["", "clean: AUC-ROC, AUC-PR, rank", "Consensus minus it: AUC-ROC, AUC-PR"]
        head += ["anomalies in training", "Consensus minus it", "fit, s (clean)"]
        lines = [head, ["---", *["--:"] * 5]]
        for name in found[0][0].index:
            line = [shown(name)]
            for table, pr, differences in found:
                roc = table.loc[name]
                values = [percent(roc["auc_roc_mean"]), percent(pr.loc[name, "auc_pr"])]
                line += [", ".join([*values, f"{roc['auc_roc_rank']:.1f}"])]
                line += [", ".join(differences.get(name, {}).values())]
            lines.append([*line, f"{found[0][0].loc[name, 'fit_seconds']:.2f}"])
        return piped(lines)

    return table


SETTINGS = {
    "benchmarks/papers/anorand.toml:tables": "AnoRand, paper",
    "benchmarks/papers/dae.toml:tables": "DAE, OCGAN's noise",
    "benchmarks/papers/deep_svdd.toml:tables": "DeepSVDD, paper",
    "benchmarks/papers/iaead.toml:tables": "IAEAD, paper",
    "benchmarks/papers/iae_lstm_kl.toml:tables": "IAELSTMKL, paper",
    "benchmarks/papers/ns_ae.toml:tables": "NSAE, paper",
}


def study(file: str, protocol: str, more: bool = False) -> Callable[[], str]:
    """Show a study on ADBench's tables: confirmation sets, then development ones."""

    def table() -> str:
        from benchmarks.adbench import expand
        from deepod.bench.reporting import tables

        there = common(file, protocol, expand(["confirmation"]))
        chosen = means(common(file, protocol, expand(["development"])), "auc_roc", "auc_pr")
        others = means(there, "auc_pr", "false_alarms")
        seconds = means(common(file, protocol), "fit_seconds")  # over all sets
        head = ["", "confirmation: AUC-ROC", "rank", "AUC-PR", "flagged", "development: AUC-ROC"]
        head += ["AUC-PR", "fit, s"] if more else []
        lines = [head, ["---", *["--:"] * (len(head) - 1)]]
        for name, line in tables.summary(there, "auc_roc").iterrows():
            cells = [
                shown(str(name), SETTINGS),
                f"{percent(line['mean'])} ± {percent(line['std'])}",
                f"{line['rank']:.1f}",
                percent(others.loc[name, "auc_pr"]),
                f"{100 * others.loc[name, 'false_alarms']:.0f}",
                percent(chosen.loc[name, "auc_roc"]),
            ]
            if more:
                cells += [percent(chosen.loc[name, "auc_pr"])]
                cells += [f"{seconds.loc[name].item():.2f}"]
            lines.append(cells)
        return piped(lines)

    return table


def baselines(protocol: str) -> Callable[[], str]:
    """Show the detectors that papers compare with among the rest, three seeds of each."""

    def table() -> str:
        import pandas as pd

        from benchmarks.adbench import expand
        from deepod.bench.reporting import tables

        own = common(f"baselines_{protocol}.jsonl", protocol)
        others = common(f"study_{protocol.replace('-', '_')}.jsonl", protocol)
        rows = pd.concat([own, others[others["seed"] < 3]], ignore_index=True)
        apart = rows["dataset"].isin(expand(["confirmation"]))
        there, development = rows[apart], means(rows[~apart], "auc_roc")
        others = means(there, "auc_pr", "false_alarms")
        lines = [["", "confirmation: AUC-ROC", "rank", "AUC-PR", "flagged", "development: AUC-ROC"]]
        lines.append(["---", *["--:"] * 5])
        for name, line in tables.summary(there, "auc_roc").iterrows():
            cells = [f"{percent(line['mean'])} ± {percent(line['std'])}", f"{line['rank']:.1f}"]
            cells += [percent(others.loc[name, "auc_pr"])]
            cells += [f"{100 * others.loc[name, 'false_alarms']:.0f}"]
            lines.append([shown(str(name)), *cells, percent(development.loc[name, "auc_roc"])])
        return piped(lines)

    return table


LABELS = {
    "benchmarks/labels.toml:anorand-few": '**`AnoRand(supervision="few_labels")`**',
    "benchmarks.reference:RandomForest": "random forest, unlabelled rows as normal ones",
    "benchmarks/labels.toml:plad-drop": '`PLAD(supervision="drop_anomalies")`',
    "benchmarks/labels.toml:anorand-once": "AnoRand, each known anomaly trained on once",
    "PLAD": "`PLAD()`, no labels",
    "AnoRand": "`AnoRand()`, no labels",
    "pyod:KNN": "KNN (PyOD), no labels",
}


def few_labels() -> str:
    """Show what labels of 1, 5 and 10 % of the anomalies are worth."""
    shares = (1, 5, 10)
    parts = [
        means(
            common("few_labels.jsonl", f"few-labels-{n}", detectors=list(LABELS)),
            *("auc_roc", "auc_pr"),
        )
        for n in shares
    ]
    head = [""] + [text for n in shares for text in (f"{n} %: AUC-ROC", "AUC-PR")]
    lines = [head, ["---", *["--:"] * 6]]
    for name, text in LABELS.items():
        values = [percent(part.loc[name, m]) for part in parts for m in ("auc_roc", "auc_pr")]
        lines.append([text, *values])
    return piped(lines)


def side_by_side(parts: dict[str, Any], names: dict[str, str]) -> str:
    """Show AUC-ROC and AUC-PR of named detectors; a column for each part of the results."""
    found = [means(part, "auc_roc", "auc_pr") for part in parts.values()]
    lines = [["AUC-ROC, AUC-PR", *parts], ["---", *["--:"] * len(parts)]]
    for name, text in names.items():
        cells = [part.loc[name] for part in found]
        lines.append([text, *(f"{percent(c.auc_roc)}, {percent(c.auc_pr)}" for c in cells)])
    return piped(lines)


def by_label(file: str, protocols: dict[str, str], names: dict[str, str]) -> str:
    """Show AUC-ROC and AUC-PR of chosen detectors under several protocols."""
    parts = {title: common(file, p, detectors=list(names)) for p, title in protocols.items()}
    return side_by_side(parts, names)


TOML = "benchmarks/labels.toml:"
DEVELOPED = {
    TOML + "anorand-few": "**half, mean of both blocks, minmax: the default**",
    TOML + "anorand-fifth": "a fifth",
    TOML + "anorand-swapped": "fusion swapped",
    TOML + "anorand-detection": "detection block alone",
    TOML + "anorand-reconstruction": "reconstruction alone",
    TOML + "anorand-scaled": "scaler standard",
    TOML + "anorand-weight": "detection weight 0.5",
    TOML + "anorand-lr": "lr 3e-3",
    TOML + "anorand-once": "each once, fusion swapped: the default before",
    "benchmarks.reference:RandomForest": "random forest",
}
WITH_ERRORS = {
    "benchmarks.reference:RandomForest": "random forest",
    TOML + "anorand-supervised": '**`AnoRand(supervision="supervised")`**',
    TOML + "anorand-standard": "AnoRand, standard scaling, each anomaly once",
    TOML + "plad-drop": '`PLAD(supervision="drop_anomalies")`',
}


def few_labels_development() -> str:
    """Show the candidates for the default with labels."""
    protocols = {f"few-labels-{n}": f"{n} %" for n in (1, 5, 10)}
    return by_label("few_labels_development.jsonl", protocols, DEVELOPED)


def label_errors() -> str:
    """Show what wrong labels cost."""
    protocols = {"label-errors-0": "all right", "label-errors-5": "5 % wrong"}
    protocols |= {"label-errors-10": "10 %", "label-errors-25": "25 %"}
    return by_label("label_errors.jsonl", protocols, WITH_ERRORS)


SHARES = (0, 5, 10, 20)
FOUR = ("breastw", "skin", "SpamBase", "WPBC")  # those that have 20 % of anomalies to train on


def contaminated() -> str:
    """Show how figures fall with the share of anomalies among the training rows."""
    file = "contaminated.jsonl"
    parts = {n: common(file, f"contaminated-{n}") for n in SHARES}
    found = {n: means(part, "auc_roc", "auc_pr") for n, part in parts.items()}
    four = {}
    for n in (0, 20):
        names = parts[n]["dataset"].str.replace(r"^\d+_", "", regex=True)
        four[n] = means(parts[n][names.isin(FOUR)], "auc_roc")
    head = ["AUC-ROC", *(f"{n} %" for n in SHARES), "AUC-PR 0 %", "20 %"]
    lines = [[*head, "the four sets: AUC-ROC 0 %", "20 %"], ["---", *["--:"] * 8]]
    for name in found[0].sort_values("auc_roc", ascending=False).index:
        line = [percent(found[n].loc[name, "auc_roc"]) for n in SHARES]
        line += [percent(found[n].loc[name, "auc_pr"]) for n in (0, 20)]
        line += [percent(four[n].loc[name, "auc_roc"]) for n in (0, 20)]
        lines.append([shown(name), *line])
    return piped(lines)


NOISE = {
    "duplicated-3": "anomalies 3 times",
    "duplicated-6": "6 times",
    "irrelevant-10": "10 % noise columns",
    "irrelevant-25": "25 %",
    "irrelevant-50": "50 %",
}
OF_NOISE = {  # and where the same detectors are without noise
    "noise.jsonl": "study_unsupervised.jsonl",
    "consensus_noise.jsonl": "baselines_unsupervised.jsonl",
}


def noise() -> str:
    """Show what copies of anomalies and columns of noise cost, with the same seeds as without."""
    import pandas as pd

    from benchmarks.adbench import expand

    found: dict[str, list[Any]] = {p: [] for p in ("as they are", *NOISE)}
    for file, plain in OF_NOISE.items():
        noisy = {p: common(file, p) for p in NOISE}
        one = noisy["duplicated-3"]
        there = common(plain, "unsupervised", expand(["confirmation"]), set(one["detector"]))
        noisy["as they are"] = there[there["seed"].isin(set(one["seed"]))]
        for p, rows in noisy.items():
            found[p].append(means(rows, "auc_roc", "auc_pr"))
    whole = {p: pd.concat(parts) for p, parts in found.items()}
    lines = [["AUC-ROC, AUC-PR", "as they are", *NOISE.values()], ["---", *["--:"] * 6]]
    for name in whole["as they are"].sort_values("auc_roc", ascending=False).index:
        cells = [table.loc[name] for table in whole.values()]
        lines.append([shown(name), *(f"{percent(c.auc_roc)}, {percent(c.auc_pr)}" for c in cells)])
    return piped(lines)


def wide() -> str:
    """Compare on tables of 274 to 768 columns."""
    part = common("consensus_wide.jsonl", "one-class")
    names = part["dataset"].str.lower()
    confirmation = part["dataset"].str.startswith("wide-confirmation/")
    mvtec = confirmation & names.str.contains("mvtec")
    groups = (part[mvtec], part[confirmation & ~mvtec], part[~confirmation])
    found = [means(group, "auc_roc", "auc_pr") for group in groups]
    differences = ahead(part[confirmation], "Consensus")
    head = ["", "15 of MVTec-AD", "5 others of `wide-confirmation`", "Consensus minus it, all 20"]
    lines = [[*head, "4 of `wide-development`"], ["---", *["--:"] * 4]]
    order = means(part[confirmation], "auc_roc").sort_values("auc_roc", ascending=False).index
    for name in order:
        cells = [f"{percent(t.loc[name].auc_roc)}, {percent(t.loc[name].auc_pr)}" for t in found]
        difference = differences.get(name, {}).get("AUC-ROC", "")
        lines.append([shown(name), cells[0], cells[1], difference, cells[2]])
    return piped(lines)


def thresholds() -> str:
    """Show the share of new normal rows that are flagged where 10 % were asked for."""
    from deepod.bench.reporting import tables

    part = common("consensus_adbench.jsonl", "one-class")
    by = tables.per_dataset(part, "false_alarms")
    rows = part.pivot_table(values="n_train", index="dataset")["n_train"]
    lines = [["", "mean", "worst set", "its training rows"], ["---", *["--:"] * 3]]
    for name in by.mean().sort_values(ascending=False).index:
        worst = by[name].idxmax()
        cells = [percent(by[name].mean()), f"{100 * by[name].max():.0f}", f"{rows[worst]:,.0f}"]
        lines.append([shown(name), *cells])
    return piped(lines)


OF_SERIES = {
    "SeriesConsensus": "`SeriesConsensus`",
    "WindowNeighbors": "`WindowNeighbors`",
    "baseline:neighbors": "PyOD's KNN in `Windows` (48)",
    "LSTMAD": "`LSTMAD`",
    "baseline:ridge": "`RidgeAR`",
    "benchmarks/series.toml:Windows(AutoEncoder)": "`Windows(AutoEncoder())`",
    "baseline:kmeans": "k-means of windows",
    "LSTMVAE": "`LSTMVAE`",
    "LSTMAE": "`LSTMAE`",
    "baseline:pca": "PCA of windows",
    "baseline:iforest": "isolation forest on windows",
    "baseline:moving-average": "moving average",
    "baseline:random": "random",
    "benchmarks/series.toml:SeriesConsensus causal": "`SeriesConsensus`, causal",
    "benchmarks/series.toml:LSTMAD causal": "`LSTMAD`, causal",
}
SOURCES = ("SMD", "ASD", "MSL", "SMAP", "NAB", "ECG", "UCR", "discords")


def series() -> str:
    """Compare on time series, by VUS-PR: in all, by halves and by sources."""

    def short(value: float, digits: int = 2) -> str:
        return f"{value:.{digits}f}".removeprefix("0")

    rows = rows_of("series.jsonl")
    rows = rows[rows["error"].isna()]
    half = rows["dataset"].str.split("/").str[0]
    source = rows["dataset"].str.split("/").str[1]
    head = ["", "all", "first", "second", "mean of sources", *SOURCES, "fit", "score"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for name, text in OF_SERIES.items():
        own = rows[rows["detector"] == name]
        values = own["vus_pr"]
        parts = [values, values[half == "series-first"], values[half == "series-second"]]
        by_source = values.groupby(source).mean()
        cells = [short(part.mean(), 3) for part in parts]
        cells += [short(by_source.mean(), 3), *(short(by_source[s]) for s in SOURCES)]
        cells += [f"{own[k].mean():.1f}" for k in ("fit_seconds", "score_seconds")]
        lines.append([text, *cells])
    return piped(lines)


def differences_of_series() -> str:
    """Show by how much SeriesConsensus is ahead of the others, in hundredths of VUS-PR."""
    rows = rows_of("series.jsonl")
    rows = rows[rows["error"].isna() & rows["detector"].isin(list(OF_SERIES))]
    parts = {"all": rows}
    for half in ("first", "second"):
        parts[half] = rows[rows["dataset"].str.startswith(f"series-{half}/")]
    lines = [["", *parts], ["---", *["--:"] * len(parts)]]
    for name, text in OF_SERIES.items():
        if name == "SeriesConsensus":
            continue
        cells = []
        for part in parts.values():
            there = set(part.loc[part["detector"] == name, "dataset"])
            pair = part["dataset"].isin(there) & part["detector"].isin([name, "SeriesConsensus"])
            cells.append(ahead(part[pair], "SeriesConsensus")[name]["VUS-PR"])
        lines.append([text, *cells])
    return piped(lines)


OF_THE_SECOND_HALF = {
    "Seq2SeqAttention": "`Seq2SeqAttention`",
    "CNNVAELSTM": "`CNNVAELSTM`",
    "CLSTM": "`CLSTM`, without labels",
    "SeriesConsensus": "for comparison: `SeriesConsensus`",
    "LSTMAD": "`LSTMAD`",
    "baseline:random": "random",
}


def series_of_the_second_half() -> str:
    """Show those that were run on the second half alone, by VUS-PR, with some others."""
    import pandas

    rows = pandas.concat([rows_of("series_second.jsonl"), rows_of("series.jsonl")])
    rows = rows[rows["error"].isna() & rows["dataset"].str.startswith("series-second/")]
    source = rows["dataset"].str.split("/").str[1]
    lines = [["", "second half", *SOURCES], ["---", *["--:"] * (len(SOURCES) + 1)]]
    for name, text in OF_THE_SECOND_HALF.items():
        own = rows[rows["detector"] == name]
        by_source = own["vus_pr"].groupby(source).mean()
        cells = [f"{own['vus_pr'].mean():.3f}", *(f"{by_source[s]:.2f}" for s in SOURCES)]
        lines.append([text, *(cell.removeprefix("0") for cell in cells)])
    return piped(lines)


# --- parts of methods, and candidates for defaults ------------------------------------------------


def sections(file: str, names: dict[str, str]) -> dict[str, str]:
    """Put the file of settings in front of names of sections, which begin in lower case."""
    found = {}
    for name, text in names.items():
        section = name.islower() and ":" not in name
        found[f"benchmarks/{file}:{name}" if section else name] = text
    return found


FUSIONS = {
    "AnoRand": "the reconstruction alone: `AnoRand()`",
    "fusion-swapped": "`swapped`",
    "fusion-mean": "`mean`",
    "fusion-paper": "`paper` (equation 8)",
    "fusion-detection": "the detection block alone",
}
PARTS_OF_IAE = {
    "dsvdd": "Deep SVDD",
    "dsvdd-kl": "DSVDD-KL",
    "dlsvdd": "DLSVDD",
    "dlsvdd-kl": "DLSVDD-KL",
    "iae-kl": "IAE-KL",
    "iae-lstm": "IAE-LSTM",
    "iae-lstm-kl": "IAE-LSTM-KL, hard",
    "iae-lstm-kl-soft": "IAE-LSTM-KL, soft",
    "no-input-gate": "without input gate",
    "no-output-gate": "without output gate",
    "no-gates": "without both gates",
    "kl-moments": "KL of the batch's moments, weight 0.1",
    "kl-shift-heavy": "published KL term, weight 10",
    "reconstruction": '`score_by="reconstruction"`',
    "IAELSTMKL": "`IAELSTMKL()`: combined",
}
PARTS_OF_NSAE = {
    "autoencoder-only": "autoencoder alone (mean squared error)",
    "normalization": "+ normalisation (`detach`)",
    "NSAE": "+ novelty score: `NSAE()`",
    "normalization-attached": "normalisation as printed (`attached`)",
    "novelty-attached": "the same + novelty score",
    "hard-concrete": "`NSAE()` with hard-concrete gates",
}
PARTS_OF_PLAD = {
    "PLAD": "`PLAD()`",
    "one-member": "one member (`one-member`)",
    "untrained": "prototypes as they start, nothing learned (`untrained`)",
    "one-direction": "perturbation as learned, no signs, no reach (`one-direction`)",
    "mlp": "an MLP as the classifier (`mlp`)",
}
PAPER_OF_PLAD = "benchmarks/papers/plad.toml:thyroid"
WITH_PLAD = {
    name: shown(name)
    for name in ("pyod:KNN", "PLAD", "pyod:IForest", "pyod:AutoEncoder", "pyod:ECOD")
} | {PAPER_OF_PLAD: "PLAD, the paper's setting for Thyroid"}


def fusions() -> str:
    """Show fusions of the two blocks of AnoRand."""
    protocols = {"one-class": "clean one-class", "unsupervised": "unsupervised"}
    parts = {
        title: common(f"anorand_fusion_{protocol}.jsonl", protocol)
        for protocol, title in protocols.items()
    }
    return side_by_side(parts, sections("ablations_anorand.toml", FUSIONS))


def parts_of(file: str, settings: str, names: dict[str, str]) -> Callable[[], str]:
    """Show what parts of a method are worth after clean training."""

    def table() -> str:
        from deepod.bench.reporting import tables

        there = common(file, "one-class")
        roc, pr = tables.summary(there, "auc_roc"), means(there, "auc_pr")
        lines = [["", "AUC-ROC", "AUC-PR"], ["---", "--:", "--:"]]
        for name, text in sections(settings, names).items():
            cell = f"{percent(roc.loc[name, 'mean'])} ± {percent(roc.loc[name, 'std'])}"
            lines.append([text, cell, percent(pr.loc[name, "auc_pr"])])
        return piped(lines)

    return table


def plad(names: dict[str, str]) -> Callable[[], str]:
    """Show PLAD, and others or its parts, on both groups of datasets."""

    def table() -> str:
        import pandas as pd

        from benchmarks.adbench import expand

        files = ("plad_one_class.jsonl", "plad_ablations.jsonl")
        rows = pd.concat([common(file, "one-class") for file in files])
        groups = ("development", "confirmation")
        return side_by_side(
            {group: rows[rows["dataset"].isin(expand([group]))] for group in groups},
            sections("ablations_plad.toml", names),
        )

    return table


def thresholds_of_plad() -> str:
    """Show the share of new normal rows that thresholds of PLAD and others flag."""
    from deepod.bench.reporting import tables

    names = {"benchmarks/ablations_plad.toml:by-heart": "PLAD, 500 prototypes (`by-heart`)"}
    lines = [["", "flagged"], ["---", "--:"]]
    found = tables.summary(common("plad_thresholds.jsonl", "one-class"), "false_alarms")
    for name, line in found.iterrows():
        lines.append([shown(str(name), names), f"{percent(line['mean'])} ± {percent(line['std'])}"])
    return piped(lines)


def gap() -> str:
    """Show three candidates for the default of PLAD with PLAD and KNN, three seeds of each."""
    import pandas as pd

    from benchmarks.adbench import expand
    from deepod.bench.reporting import tables

    study = common("study_one_class.jsonl", "one-class", detectors=["PLAD", "pyod:KNN"])
    rows = pd.concat([common("gap.jsonl", "one-class"), study[study["seed"] < 3]])
    names = {"PLAD": "`PLAD()`", "lam-10": "lam 10", "minmax": "scaler minmax", "both": "both"}
    lines: list[list[str]] = [[""], ["---"]] + [[text] for text in (*names.values(), "KNN (PyOD)")]
    for group in ("development", "confirmation"):
        there = rows[rows["dataset"].isin(expand([group]))]
        roc, others = tables.summary(there, "auc_roc"), means(there, "auc_pr", "false_alarms")
        lines[0] += [f"{group}: AUC-ROC", "AUC-PR", "flagged"]
        lines[1] += ["--:"] * 3
        found = [*sections("gap.toml", names), "pyod:KNN"]
        for line, name in zip(lines[2:], found, strict=True):
            line += [f"{percent(roc.loc[name, 'mean'])} ± {percent(roc.loc[name, 'std'])}"]
            line += [percent(others.loc[name, "auc_pr"])]
            line += [f"{100 * others.loc[name, 'false_alarms']:.0f}"]
    return piped(lines)


CHANGED = ("PLAD", "AnoRand", "IAELSTMKL", "NSAE")


def candidates() -> str:
    """Show what changing one setting of a default does to the AUC-ROC on development sets."""
    found = 100 * means(common("study_development.jsonl", "one-class"), "auc_roc")["auc_roc"]
    columns = []
    for name in CHANGED:
        own = f"benchmarks/study.toml:{name.lower()}-"
        away = (found[found.index.str.startswith(own)] - found[name]).sort_values(ascending=False)
        column = [(f"`{key.removeprefix(own)}`", f"{v:+.1f}") for key, v in away.items()]
        columns.append([(f"**`{name}()`**", f"**{found[name]:.1f}**"), *column])
    lines = [["setting", "AUC-ROC"] * len(CHANGED), ["---", "--:"] * len(CHANGED)]
    for row in zip_longest(*columns, fillvalue=("", "")):
        lines.append([cell for pair in row for cell in pair])
    return piped(lines)


# --- thresholds from training scores --------------------------------------------------------------

RULES = {
    "contamination=0.1": "`contamination=0.1`",
    "contamination=0.05": "`contamination=0.05`",
    "contamination='auto'": '`contamination="auto"`: Tukey\'s fence (1977)',
    "MAD": "modified z-score by the MAD above 3.5 (Iglewicz & Hoaglin 1993)",
    "semi-interquartile": "Q3 + 3 (Q3 - Q2) (Kimber 1990)",
    "adjusted boxplot": "adjusted boxplot (Hubert & Vandervieren 2008)",
    "Tukey, log scores": "Tukey's fence of log scores, where they are positive",
    "three sigma": "mean + 3 standard deviations",
    "PyThresh KARCH": "PyThresh KARCH",
    "PyThresh FILTER": "PyThresh FILTER",
    "contamination=0": "`contamination=0`",
    "false_alarm_rate=0.1": "`false_alarm_rate=0.1, calibration_fraction=0.2`",
}


def of_rules(protocol: str) -> dict[str, Any]:
    """Return lines of cells and rules for both groups of datasets."""
    from benchmarks import thresholds
    from benchmarks.adbench import expand
    from deepod.bench import read

    table = thresholds.by_rule(read(RESULTS / "thresholds.jsonl"))
    table = table[table["protocol"] == protocol]
    return {
        group: table[table["dataset"].isin(expand([group]))]
        for group in ("development", "confirmation")
    }


def rules() -> str:
    """Show F1 and the share of flagged normal rows of rules for the threshold."""
    from benchmarks.thresholds import means

    clean, unsupervised = of_rules("one-class"), of_rules("unsupervised")
    head, found = [""], []
    for group in clean:
        head += [f"{group}, clean: F1", "flagged", "contaminated: F1", "flagged"]
        found += [means(part[group], ["rule"], ["f1", "false_alarms"])
                  for part in (clean, unsupervised)]  # fmt: skip
    lines = [head, ["---", *["--:"] * 8]]
    for name, text in RULES.items():
        there = [list(part.loc[name]) if name in part.index else ["", ""] for part in found]
        cells = [cell if cell == "" else f"{cell:.1f}" for pair in there for cell in pair]
        lines.append([text, *cells])
    return piped(lines)


def held_out() -> str:
    """Show the share of new normal rows that are flagged, with and without calibration rows."""
    from benchmarks.thresholds import means

    chosen = ("contamination=0.1", "false_alarm_rate=0.1")
    lines = [[""], ["---"]]
    for group, part in of_rules("one-class").items():
        for rule in chosen:
            lines[0].append(f"{group}: `{rule}`")
            lines[1].append("--:")
            own = part[part["rule"] == rule]
            shares = means(own, ["detector"], ["false_alarms"])["false_alarms"]
            shares["the worst dataset"] = 100 * own.groupby("dataset")["false_alarms"].mean().max()
            for row, (name, value) in enumerate(shares.items(), start=2):
                if row == len(lines):
                    lines.append([str(name)])
                lines[row].append(f"{value:.1f}")
    return piped(lines)


# --- images, and published figures of tables ------------------------------------------------------

OF_IMAGES = {
    "autoencoder": "AutoEncoder, LeNet 8-4",
    "autoencoder-mlp": "AutoEncoder, MLP",
    "deep_svdd": "DeepSVDD, LeNet 8-4",
    "deep_svdd-cifar10": "DeepSVDD, LeNet 16-32-64",
    "iae_lstm_kl": "IAELSTMKL, distance",
    "iae_lstm_kl-combined": "IAELSTMKL, combined",
    "ns_ae": "NSAE, LeNet 8-4",
    "ns_ae-attached": "NSAE, as printed",
    "ns_ae-normalization": "NSAE, no novelty score",
}


def images(dataset: str) -> Callable[[], str]:
    """Show AUC-ROC by the class that is normal."""

    def table() -> str:
        from deepod.bench.reporting import tables

        there = common(f"images_{dataset}.jsonl", "images")
        values, seconds = tables.per_dataset(there, "auc_roc"), means(there, "fit_seconds")
        classes = [str(k) for k in range(10)]
        lines = [["normal class", *classes, "mean", "fit, s"], ["---", *["--:"] * 12]]
        names = sections("images.toml", OF_IMAGES)
        for name in values.mean().sort_values(ascending=False).index:
            own = [values.loc[f"{dataset}:{k}", name] for k in classes]
            cells = [percent(v) for v in (*own, values[name].mean())]
            lines.append([shown(str(name), names), *cells, f"{seconds.loc[name].item():.1f}"])
        return piped(lines)

    return table


def slow_images() -> str:
    """Show AUC-ROC of one class of each set, of those that were not run on all of them."""
    there = common("images_slow.jsonl", "images")
    values = there.pivot_table(values="auc_roc", index="detector", columns="dataset")
    seconds = means(there, "fit_seconds", "score_seconds")
    lines = [["", *values.columns, "fit, s", "score, s"], ["---", *["--:"] * (len(values.T) + 2)]]
    for name, own in values.iterrows():
        cells = [percent(value) for value in own]
        lines.append([shown(str(name)), *cells, *(f"{s:.0f}" for s in seconds.loc[name])])
    return piped(lines)


OF_NETWORKS = {
    "LeNet": "LeNet, no BatchNorm",
    "MLP": "MLP, no BatchNorm",
    "auto": "LeNet",
    "MLP-normed": "MLP",
    "prototypes": "prototypes",
}
NORMED = ("DeepSVDD-MLP", "IAELSTMKL-MLP")  # with BatchNorm, which their names do not say


def image_networks(classes: str) -> Callable[[], str]:
    """Show AUC-ROC by the network of images: means over three classes of each set."""

    def table() -> str:
        rows = rows_of("image_networks.jsonl")
        rows = rows[rows["dataset"].str[-1].isin(list(classes))]
        of_set = rows["dataset"].str.partition(":")[0]
        names = rows["detector"].str.partition(":")[2]
        sets = ["fashion_mnist", "mnist", "cifar10_small"]
        lines = [["", "network", *sets, "fit, s"], ["---", "---", *["--:"] * 4]]
        for name in dict.fromkeys(names):
            found = [rows[(names == name) & (of_set == s)] for s in sets]
            cells = [percent(own["auc_roc"].mean()) if len(own) == 3 else "" for own in found]
            seconds = rows[(names == name) & (of_set != "cifar10_small")]["fit_seconds"].mean()
            detector, _, network = name.partition("-")
            network = "MLP" if name in NORMED else OF_NETWORKS[network]
            if any(cells):
                lines.append([f"`{detector}`", network, *cells, f"{seconds:.1f}"])
        order = [f"`{name}`" for name in ("AutoEncoder", "NSAE", "DeepSVDD", "IAELSTMKL", "PLAD")]
        return piped([*lines[:2], *sorted(lines[2:], key=lambda c: (order.index(c[0]), c[1]))])

    return table


PUBLISHED = {
    "semi": "DTE-NP KNN ICL SLAD OCSVM CBLOF IForest DeepSVDD",
    "unsupervised": "KNN IForest DTE-NP CBLOF MCD VAE OCSVM HBOS DeepSVDD",
}


def published(kind: str) -> Callable[[], str]:
    """Show detectors among published figures, some of which are shown, all of which count."""

    def table() -> str:
        from deepod.bench.reporting import tables

        there = rows_of(f"published-{kind}.jsonl")
        sets = there.groupby("detector")["dataset"].agg(frozenset)
        if len(set(sets)) > 1:
            raise ValueError(f"published-{kind}: not all detectors have the same datasets")
        scores, means = tables.with_published(there, RESULTS / f"livernoche2024-{kind}.csv")
        ours = [str(name) for name in means.index[means["here"]]]
        theirs = scores.drop(columns=ours)
        ranks = dict(theirs.rank(axis=1, ascending=False).mean())
        for name in ours:  # each alone among theirs
            among = theirs.assign(**{name: scores[name]})
            ranks[name] = among.rank(axis=1, ascending=False)[name].mean()
        lines = [["", "mean rank", "mean AUC-ROC"], ["---", "--:", "--:"]]
        for name in sorted(means.index, key=lambda name: ranks[name]):
            short = name.removesuffix(" (published)")
            if name in ours or short in PUBLISHED[kind].split():
                text = f"**{shown(short)}**" if name in ours else f"{short}, published"
                lines.append([text, f"{ranks[name]:.1f}", f"{means['mean'][name]:.1f}"])
        return piped(lines)

    return table


def published_embeddings() -> str:
    """Show AUC-ROC on embeddings of MVTec-AD beside published figures: means over its 15 files."""
    import pandas as pd

    ours = means(common("published-mvtec.jsonl", "published-semi"), "auc_roc")["auc_roc"]
    theirs = pd.read_csv(RESULTS / "livernoche2024-semi.csv", index_col=0).loc["MVTec-AD"]
    cells = {f"**{shown(str(name))}**": 100 * value for name, value in ours.items()}
    cells |= {f"{name}, published": value for name, value in theirs.items() if value >= 80}
    found = sorted(cells.items(), key=lambda cell: -cell[1])
    return piped([["", "AUC-ROC"], ["---", "--:"], *([n, f"{value:.1f}"] for n, value in found)])


# --- speed ----------------------------------------------------------------------------------------

SPEED = {
    "fit, batches of 128: PyOD's AutoEncoder / ours": ("fit_128",),
    "fit, batches of 32": ("fit_32",),
    "fit: PyOD's DeepSVDD / ours": ("PyOD DeepSVDD / deepod", "fit"),
    "scoring a million rows: PyOD in batches of 32, its default / ours": ("score_default",),
    "scoring, PyOD in batches of 4096 / ours": ("score_4096",),
    "scoring: ours / the network alone": ("score_module",),
    "ten members at once (`fit_many`) / one fit": ("members",),
    "`StackedSearchCV` / `GridSearchCV`, 12 candidates, 3 folds": ("search",),
}


def speed() -> str:
    """Show ratios of times on one thread."""
    text = (RESULTS / "speed.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if "ratio" in row]
    lines = [["", "ratio", "of single rounds"], ["---", "--:", "--:"]]
    for name, key in SPEED.items():
        (row,) = [
            row
            for row in rows
            if key in ((row.get("figure"),), (row["contender"], row["quantity"]))
        ]
        low, high = min(row["values"]), max(row["values"])
        lines.append([name, f"{row['ratio']:.3g}", f"{low:.3g} to {high:.3g}"])
    return piped(lines)


def steps() -> str:
    """Show milliseconds per step of the defaults, in plain torch and recorded."""
    text = (RESULTS / "speed.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["section"] == "step"]
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        name, _, engine = row["contender"].partition(", engine ")
        if engine and row["quantity"] == "step":
            key = row["setting"].partition("()")[0], row["batch_size"]
            found.setdefault(key, {})[engine] = 1000 * row["median"]
    lines = [["ms per step", "batch", "`eager`", "`trace`"], ["---", *["--:"] * 3]]
    for (name, size), each in found.items():
        lines.append([f"`{name}()`", str(size), f"{each['eager']:.2f}", f"{each['trace']:.2f}"])
    return piped(lines)


# --- tables that benchmarks print -----------------------------------------------------------------


def printed(command: str, file: str, part: int = 0, **chosen: Any) -> Callable[[], str]:
    """Take a table of what a benchmark says of its file of results; ``chosen``: of some rows."""

    def table() -> str:
        module = importlib.import_module(f"benchmarks.{command}")
        text = (RESULTS / file).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        for key, wanted in chosen.items():
            names = getattr(module, wanted)
            rows = [row for row in rows if row[key] in names]
        said = getattr(module, "report", None) or module.table
        tables = [block for block in re.split(r"\n\n+", said(rows)) if block.startswith("|")]
        return tables[part].strip()

    return table


def more_anomalies() -> str:
    """Return the table of what anomalies among the training rows cost, with intervals."""
    from deepod.bench.reporting import tables

    file = "consensus_contaminated.jsonl"
    clean, full = (
        tables.per_dataset(common(file, f"contaminated-{n}"), "auc_roc") for n in (0, 20)
    )
    losses = clean - full
    low, high = tables.interval(losses.to_numpy())
    lines = [["AUC-ROC", "0 %", "20 %", "loss"], ["---", *["--:"] * 3]]
    for name in full.mean().sort_values(ascending=False).index:
        k = losses.columns.get_loc(name)
        loss = f"{percent(losses[name].mean())} [{percent(low[k])}, {percent(high[k])}]"
        lines.append([shown(name), percent(clean[name].mean()), percent(full[name].mean()), loss])
    return piped(lines)


TABLES: dict[str, Callable[[], str]] = {
    "detectors in short": detectors_in_short,
    "detectors": detectors_in_full,
    "oddbench in short": oddbench_in_short,
    "consensus, choice": choice,
    "novelty": novelty,
    "oddbench": consensus("consensus_oddbench.jsonl"),
    "oddbench, methods": four_methods,
    "adbench, consensus": consensus("consensus_adbench.jsonl"),
    "study, clean": study("study_one_class.jsonl", "one-class"),
    "study, contaminated": study("study_unsupervised.jsonl", "unsupervised"),
    "papers' settings, clean": study("family_one-class.jsonl", "one-class", more=True),
    "papers' settings, contaminated": study("family_unsupervised.jsonl", "unsupervised", more=True),
    "few labels": few_labels,
    "few labels, development": few_labels_development,
    "label errors": label_errors,
    "baselines, clean": baselines("one-class"),
    "baselines, contaminated": baselines("unsupervised"),
    "contaminated": contaminated,
    "consensus, contaminated": more_anomalies,
    "noise": noise,
    "wide": wide,
    "thresholds": thresholds,
    "thresholds, rules": rules,
    "thresholds, held out": held_out,
    "gap": gap,
    "candidates": candidates,
    "AnoRand, fusions": fusions,
    "IAE-LSTM-KL, parts": parts_of(
        "iae_lstm_kl_ablations.jsonl", "ablations_iae_lstm_kl.toml", PARTS_OF_IAE
    ),
    "NS-AE, parts": parts_of("ns_ae_ablations.jsonl", "ablations_ns_ae.toml", PARTS_OF_NSAE),
    "PLAD": plad(WITH_PLAD),
    "PLAD, parts": plad(PARTS_OF_PLAD),
    "PLAD, thresholds": thresholds_of_plad,
    "images, Fashion-MNIST": images("fashion_mnist"),
    "images, MNIST": images("mnist"),
    "images, CIFAR-10": images("cifar10_small"),
    "images, slow": slow_images,
    "images, networks": image_networks("579"),
    "images, choice of networks": image_networks("024"),
    "published, semi-supervised": published("semi"),
    "published, unsupervised": published("unsupervised"),
    "published, embeddings": published_embeddings,
    "series": series,
    "series, three more": series_of_the_second_half,
    "stationary": printed("stationary", "stationary.jsonl"),
    "series, beside PyOD": printed("series_speed", "series_speed.jsonl"),
    "series, growth": printed("series_speed", "series_speed.jsonl", part=1),
    "survey": printed("survey", "survey.jsonl"),
    "series, differences": differences_of_series,
    "speed": speed,
    "speed, steps": steps,
    "speed, wanted": printed("speed_report", "speed.jsonl"),
    "mixed": printed("mixed", "mixed.jsonl", table="TABLES"),
    "mixed, confirmation": printed("mixed", "mixed.jsonl", table="CONFIRMATION"),
    "onnx": printed("onnx", "onnx.jsonl"),
    "streams": printed("stream", "stream.jsonl"),
    "contributions": printed("explain", "explain.jsonl"),
    "blamed": printed("explain", "explain.jsonl", part=1),
    "saved models": printed("trust", "trust.jsonl"),
    "transfer": printed("transfer", "transfer.jsonl", part=1),
    "tasks": printed("transfer", "transfer.jsonl", part=3),
    "tasks, forgetting": printed("transfer", "transfer.jsonl", part=4),
    "graphs, edges": printed("graphs", "graphs.jsonl"),
    "graphs, snapshots": printed("graphs", "graphs.jsonl", part=1),
}
# Those that need no files of results, which only the repository has.
WITHOUT_RESULTS = {"detectors in short", "detectors"}


def written(text: str) -> str:
    """Return a text with all its tables as they are made now."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{TABLES[m[2]]()}\n{m[4]}", text)


def names_in(text: str) -> list[str]:
    """Return the names of the tables of a text."""
    return [match[2] for match in BLOCK.finditer(text)]


def main() -> int:
    """Write all tables, or say which ones differ."""
    stale = []
    for place in PLACES:
        text = place.read_text(encoding="utf-8")
        new = written(text)
        if new != text:
            stale.append(str(place.relative_to(ROOT)))
            if "--check" not in sys.argv:
                place.write_text(new, encoding="utf-8")
    print("\n".join(stale) or "All tables are as they would be written.")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
