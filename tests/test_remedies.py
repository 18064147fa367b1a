"""What an error of the command line says to do can be done there, and helps."""

import re
import shlex

import numpy as np
import pytest

from deepod.cli import main

pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

QUICK = ["--detector", "AutoEncoder", "--set", "epochs=1"]
TABLE = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
GAP = TABLE.assign(b=[np.nan, *[1.5] * 59])
LABELLED = TABLE.assign(label=[0] * 50 + [1] * 10)
BELOW_ZERO = LABELLED.assign(label=[1] * 50 + [-1] * 10)
CSV = {
    "text": (TABLE.assign(c="x").to_csv(index=False), []),
    "name with a blank": (TABLE.assign(**{"my text": "x"}).to_csv(index=False), []),
    "time": (TABLE.assign(when="2024-01-15").to_csv(index=False), []),
    "gap": (GAP.to_csv(index=False), []),
    "latin-1": (TABLE.rename(columns={"b": "größe"}).to_csv(index=False).encode("latin-1"), []),
    "thousands": ("a;b\n" + "1,234;2\n2,345;3\n" * 30, []),
    "comma late": ("a;b\n" + "1;2\n" * 300 + "1,5;2\n", []),
    "separator": ("a,b;c\n" + "1,2;3\n2,1;4\n" * 30, ["--decimal", ","]),
    "no calibration rows": (TABLE.to_csv(index=False), ["--set", "false_alarm_rate=0.1"]),
}
PARQUET = {
    "text": (TABLE.assign(c="x"), []),
    "time": (TABLE.assign(when=pd.Timestamp("2024-01-15")), []),
    "gap": (GAP, []),
    "no calibration rows": (TABLE, ["--set", "false_alarm_rate=0.1"]),
}
FILES = {f"{name}.csv": case for name, case in CSV.items()}
FILES |= {f"{name}.parquet": case for name, case in PARQUET.items()}
OPTION = re.compile(
    r"--(drop|columns|set|sep|decimal|encoding|anomaly|normal)(?:[ =])('[^']*'|[^\s,;)]+)"
)


def remedies(message):
    """List the options that a message names, as a shell would take them."""
    found = OPTION.findall(message)
    return [[f"--{name}={''.join(shlex.split(value.rstrip('.')))}"] for name, value in found]


def fit(path, *options):
    return main(["fit", str(path), "--out", str(path.parent / "m"), *QUICK, *options])


@pytest.mark.parametrize("name", FILES)
def test_fit__first_remedy_of_the_message__helps(name, tmp_path, capsys):
    contents, options = FILES[name]
    path = tmp_path / name
    if isinstance(contents, pd.DataFrame):
        contents.to_parquet(path)
    else:
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    if name.startswith(("text", "time", "name with a blank")):  # what is encoded where it may be
        options = [*options, "--set", "categorical_features=None"]
    assert fit(path, *options) == 1
    message = capsys.readouterr().err
    found = remedies(message)
    assert found, message
    assert not re.search(r"\w=\[|Pipeline|\(X\)", message), message
    assert fit(path, *options, *found[0]) == 0, (message, capsys.readouterr().err)


@pytest.mark.parametrize("command", ["score", "plot"])
@pytest.mark.parametrize("name", ["text", "gap"])
def test_score_and_plot__remedies__are_those_of_a_fit(command, name, tmp_path, capsys):
    if command == "plot":
        pytest.importorskip("matplotlib")
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    TABLE.to_csv(good, index=False)
    assert fit(good) == 0
    (TABLE.assign(b="x") if name == "text" else GAP).to_csv(bad, index=False)
    out = tmp_path / ("s.csv" if command == "score" else "s.png")
    again = [command, str(tmp_path / "m"), str(bad), "--out", str(out)]
    capsys.readouterr()
    assert main(again) == 1
    message = capsys.readouterr().err
    (option,) = remedies(message)
    assert "deepod fit --" in message
    assert fit(good, *option) == 0
    assert main(again) == 0


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (LABELLED.assign(c="x"), []),
        (BELOW_ZERO, []),
        (LABELLED.assign(label=["fine"] * 50 + ["bad"] * 10), ["--normal", "fine"]),
    ],
)
def test_bench__first_remedy_of_the_message__helps(table, options, tmp_path, capsys):
    table.to_csv(tmp_path / "x.csv", index=False)
    command = ["bench", "--data", str(tmp_path / "x.csv"), "--out", str(tmp_path / "r.jsonl")]
    command += ["--detectors", "pyod:ECOD", "--seeds", "1", "--quiet", *options]
    if options:
        assert main(command) == 0
        return
    assert main(command) == 1
    said = capsys.readouterr()
    assert main([*command, "--retry-errors", *remedies(said.out)[0]]) == 0, said
