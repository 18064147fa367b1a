"""Streams of points: scores as they come."""

import copy
import functools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

import deepod
from deepod import series
from deepod._registry import SERIES, detector_class
from deepod.cli import main

WINDOW = 12
RNG = np.random.default_rng(0)


def wave(n, channels, start=0):
    time = np.arange(start, start + n)[:, None] / 5 + np.arange(channels)
    return np.sin(time) + 0.1 * RNG.normal(size=(n, channels))


X = {d: wave(700, d) for d in (1, 3)}
NEW = {d: wave(420, d, 700) for d in (1, 3)}
for new in NEW.values():
    new[200:210] += 3
# Of classes that need an argument, or can do what others cannot.
SPECIAL = {
    "CLSTM": [
        lambda **given: series.CLSTM(
            filters=4, hidden=4, dense=3, epochs=2, random_state=0, **given
        )
    ],
    "Seq2SeqAttention": [
        lambda **given: series.Seq2SeqAttention(
            hidden=4, horizon=3, track_size=1, epochs=1, random_state=0, **given
        ),
    ],
    "CNNVAELSTM": [
        lambda **given: series.CNNVAELSTM(
            n_windows=2, latent_dim=3, filters=(4,), hidden=(4,), epochs=2, random_state=0, **given
        )
    ],
    "Windows": [
        lambda **given: series.Windows(deepod.Neighbors(max_rows=100), **given),
        lambda **given: series.Windows(deepod.AutoEncoder(epochs=2, random_state=0), **given),
    ],
    "SeriesConsensus": [
        lambda **given: series.SeriesConsensus(
            [series.RidgeAR(**given), series.WindowNeighbors(**given)]
        ),
    ],
    "LSTMAD": [
        lambda **given: series.LSTMAD(epochs=2, **given),
        lambda **given: series.LSTMAD(epochs=2, horizons=(1, 5), error_window=WINDOW, **given),
        lambda **given: series.LSTMAD(
            epochs=2,
            hidden=(7, 5),
            horizons=(3, 1, 7),
            error_scale="covariance",
            **given | {"smoothing": None},
        ),
    ],
}


def made(cls, **given):
    settings = {"epochs": 2, "random_state": 0} | given
    known = cls._parameter_constraints
    return cls(**{name: value for name, value in settings.items() if name in known})


KINDS = [
    pytest.param(make, id=f"{name}-{k}")
    for name in SERIES
    for k, make in enumerate(
        SPECIAL.get(name) or [lambda name=name, **given: made(detector_class(name), **given)]
    )
]


@functools.cache
def fitted(make, channels=3, **given):
    """A detector that tests share, who only ask it, and new points."""
    given = {"window": WINDOW, "smoothing": "causal", "smoothing_length": 7} | given
    detector = make(**given)
    if channels > 1 and isinstance(detector, series.ReRe):
        channels = 1
    detector.fit(X[channels])
    return detector, NEW[channels]


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5 * np.median(wanted))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", KINDS)
def test_stream__any_detector__scores_of_the_batch(make, channels):
    detector, new = fitted(make, channels)
    wanted, stream = detector.decision_function(new), detector.stream()
    # Beyond two borders of chunks, at which a pass begins anew.
    found = np.array([stream.push(x) for x in new[:130]])
    found = np.concatenate([found, stream.push_many(new[130:135]), stream.push_many(new[135:])])
    warm_up = detector.warm_up_
    assert np.isnan(found[:warm_up]).all()
    assert_close(found[warm_up:], wanted[warm_up:])
    assert stream.n_points == len(new)


@pytest.mark.parametrize("length", [1, 100, 600])
@pytest.mark.parametrize("make", KINDS)
def test_stream__context__scores_of_the_batch_with_it(make, length):
    detector, new = fitted(make)
    past = X[new.shape[1]][-length:]
    wanted = detector.decision_function(new, context=past)
    found = detector.stream(context=past).push_many(new)
    known = ~np.isnan(found)
    assert known[max(0, detector.warm_up_ - length) :].all()
    assert_close(found[known], wanted[known])


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("stop", [0, 3, 150])
def test_save__loaded_into_a_new_stream__goes_on(make, stop, tmp_path):
    detector, new = fitted(make)
    stream = detector.stream()
    stream.push_many(new[:stop])
    stream.save(tmp_path / "state")
    rest = stream.push_many(new[stop:])
    again = detector.stream(context=new[:50]).load(tmp_path / "state")
    assert again.n_points == stop
    np.testing.assert_array_equal(again.push_many(new[stop:]), rest)


def test_save__restart_with_a_loaded_model__goes_on(tmp_path):
    detector, new = fitted(SPECIAL["LSTMAD"][0])
    detector.save(tmp_path / "model")
    stream = detector.stream()
    stream.push_many(new[:100])
    stream.save(tmp_path / "state")
    again = deepod.load(tmp_path / "model").stream().load(tmp_path / "state")
    assert_close(again.push_many(new[100:]), stream.push_many(new[100:]))
    with safe_open(tmp_path / "state", "np") as file:  # no pickle
        assert file.keys()


def test_load__other_file_or_detector__refused_and_unchanged(tmp_path):
    detector, new = fitted(SPECIAL["LSTMAD"][0])
    stream = detector.stream(context=new[:100])
    fitted(SPECIAL["LSTMAD"][1])[0].stream().save(tmp_path / "other")
    detector.save(tmp_path / "model.deepod")
    (tmp_path / "nonsense").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="another detector"):
        stream.load(tmp_path / "other")
    with pytest.raises(ValueError, match="no state of a stream"):
        stream.load(tmp_path / "model.deepod")
    with pytest.raises(ValueError, match="not a file of deepod"):
        stream.load(tmp_path / "nonsense")
    with pytest.raises(FileNotFoundError):
        stream.load(tmp_path / "missing")
    wanted = detector.stream(context=new[:100]).push_many(new[100:])
    np.testing.assert_array_equal(stream.push_many(new[100:]), wanted)


@pytest.mark.parametrize("make", KINDS)
def test_stream__many_points__state_does_not_grow(make, tmp_path):
    detector, new = fitted(make)
    stream = detector.stream()
    sizes = []
    for k in range(3 * 5 * WINDOW):
        stream.push(new[k % len(new)])
        state = stream._scorer.state()
        sizes.append(sum(array.nbytes for array in state.values()))
    # One round of chunks has all sizes there are.
    assert max(sizes[-5 * WINDOW :]) == max(sizes[5 * WINDOW : 10 * WINDOW])


def test_stream__points_without_an_end__finite_after_an_outlier():
    detector, new = fitted(lambda **given: series.RidgeAR(**given))
    stream, usual = detector.stream(), detector.stream()
    stream.push_many(new[:50]), usual.push_many(new[:50])
    assert stream.push([1e30, 0, 0]) > 1e6
    usual.push(new[50])
    rest = new[51 : 51 + WINDOW + 30]
    assert_close(stream.push_many(rest)[-5:], usual.push_many(rest)[-5:])


BAD = [
    ([1.0, 2.0], "an array of shape \\(2,\\); expected a point of 3 channels"),
    (1.0, "a single number; expected a point of 3 channels"),
    ([[1.0, 2.0, 3.0]], "an array of shape \\(1, 3\\)"),
    ([1.0, np.nan, 3.0], "NaN in column 1"),
    ([1.0, np.inf, 3.0], "infinity"),
    (["a", "b", "c"], "could not convert"),
    (None, "a single number|NaN|array"),
]


@pytest.mark.parametrize(("point", "message"), BAD)
def test_push__bad_point__refused_and_unchanged(point, message):
    detector, new = fitted(SPECIAL["LSTMAD"][0])
    stream = detector.stream(context=new[:60])
    with pytest.raises((ValueError, TypeError), match=message):
        stream.push(point)
    bad = np.array([*new[60:63].tolist(), [1.0, np.nan, 2.0]])
    with pytest.raises(ValueError, match="NaN"):
        stream.push_many(bad)
    wanted = detector.stream(context=new[:60]).push_many(new[60:])
    np.testing.assert_array_equal(stream.push_many(new[60:]), wanted)


def test_push__missing_values__as_in_the_batch():
    x, new = X[3].copy(), NEW[3].copy()
    x[::9, 1] = new[::7, 2] = np.nan
    detector = series.LSTMAD(
        epochs=2, window=WINDOW, missing="impute", smoothing="causal", random_state=0
    ).fit(x)
    stream = detector.stream()
    found = np.array([stream.push(point) for point in new])
    assert_close(found[WINDOW:], detector.decision_function(new)[WINDOW:])


def test_stream__smoothing_that_looks_ahead__refused():
    for detector in (series.RidgeAR(window=WINDOW), series.WindowNeighbors(smoothing=None)):
        with pytest.raises(ValueError, match="fit with smoothing='causal'"):
            detector.fit(X[1]).stream()


def test_stream__fit_afterwards__makes_no_difference():
    shared, new = fitted(SPECIAL["LSTMAD"][0])
    detector = copy.deepcopy(shared)
    stream, wanted = detector.stream(), detector.decision_function(new)
    threshold = detector.threshold_
    detector.fit(10 * X[3])
    assert_close(stream.push_many(new)[WINDOW:], wanted[WINDOW:])
    assert stream.threshold == threshold


# --- ReRe -----------------------------------------------------------------------------------------

LEVEL = 2 + 0.1 * np.random.default_rng(1).normal(size=200)


def rere(**given):
    return series.ReRe(**{"epochs": 5, "random_state": 0} | given)


def test_rere__spike__alarm_and_few_networks():
    x = LEVEL.copy()
    x[150] = 5.0
    detector = rere(epochs=20).fit(x[:100])
    scores = detector.decision_function(x[100:])
    assert detector.threshold_ == 1.0
    assert set(np.flatnonzero(scores > 1)) & {50, 51, 52}
    assert (scores[:50] > 1).mean() < 0.1
    stream = detector.stream()
    stream.push_many(x[100:])
    trained = stream._scorer.running.runner.kept["retrained"] - detector.module_.retrained.numpy()
    assert 1 <= trained < 15


@pytest.mark.parametrize("history", [None, 20])
def test_rere__by_hand__errors_over_the_usual_ones(history):
    detector = rere(history=history).fit(LEVEL[:60])
    runner = detector.stream()._scorer.running.runner
    value = (LEVEL[60] - detector.scaler_.shift.item()) / detector.scaler_.scale.item()
    kept = runner.state()
    size = max(abs(value + runner.level), 1.0)
    own = np.column_stack([kept["relative"][:, 1:], abs(value - kept["forecasts"]) / size])
    if history is None:
        usual = kept["moments"][:, 0] + 3 * np.sqrt(kept["moments"][:, 1])
    else:
        usual = kept["past"].mean(1) + 3 * kept["past"].std(1)
    ratios = own.mean(1) / usual
    assert (ratios < 1).all()  # or else networks are trained again
    assert runner.push(value) == pytest.approx(ratios.min())
    # Past errors of the first detector are those of all points.
    assert runner.kept["counts"][0] == kept["counts"][0] + 1


def test_rere__moments__of_all_past_errors():
    runner = rere().fit(LEVEL[:60]).stream()._scorer.running.runner
    runner.kept["moments"][:], runner.kept["counts"][:] = 0, 0
    errors = np.abs(LEVEL[:50])
    for error in errors:
        runner._record([0], [error])
    assert runner._usual(0) == pytest.approx(errors.mean() + 3 * errors.std())


def test_rere__scored_twice__same_scores_until_partial_fit():
    detector = rere().fit(LEVEL[:100])
    first = detector.decision_function(LEVEL[100:])
    np.testing.assert_array_equal(detector.decision_function(LEVEL[100:]), first)
    assert detector.partial_fit(LEVEL[100:150]) is detector
    np.testing.assert_allclose(detector.decision_function(LEVEL[150:]), first[50:], rtol=1e-4)
    blocks = [*rere().fit(LEVEL[:100]).score_batches([LEVEL[100:130], LEVEL[130:]])]
    np.testing.assert_array_equal(np.concatenate(blocks), first)


def test_rere__training_scores__before_each_point_is_learned():
    whole = rere().fit(LEVEL)
    assert whole.unseen_
    # The same scaling, and so the same points.
    part = rere().fit([LEVEL[:100], LEVEL[100:]])
    np.testing.assert_allclose(part.decision_scores_[:100], whole.decision_scores_[:100])
    assert np.isfinite(part.decision_scores_).all()


def test_rere__several_channels_or_too_few_points__refused():
    with pytest.raises(ValueError, match="X has 3: fit one for each channel"):
        rere().fit(X[3])
    with pytest.raises(ValueError, match="ReRe with window=3 needs 9: give longer series"):
        rere().fit(LEVEL[:8])


def test_rere__threshold__the_papers_unless_another_is_asked_for():
    assert rere(contamination=0.3).fit(LEVEL).threshold_ == 1.0
    detector = rere(false_alarm_rate=0.1).fit(LEVEL)
    assert detector.threshold_ != 1.0
    assert detector.labels_.mean() <= 0.1


# --- deepod watch ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch")
    detector, new = fitted(lambda **given: series.RidgeAR(**given))
    detector.save(folder / "model")
    return folder / "model", detector, new


def start_watch(*arguments):
    # What the shell starts in the background ignores Ctrl-C, and so would the child.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from deepod.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", code, "watch", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(run, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def line(values):
    return ",".join(map(repr, values)) + "\n"


def test_watch__points_come__scored_one_by_one(model):
    path, detector, new = model
    wanted = detector.decision_function(new)
    process = start_watch(path)
    assert process.stdout.readline() == "score,label\n"
    for k, point in enumerate(new[: WINDOW + 20].tolist()):
        process.stdin.write(line(point))
        process.stdin.flush()
        score, label = process.stdout.readline().split(",")  # before the next one comes
        if k < WINDOW:
            assert (score, label) == ("nan", "0\n")
        else:
            assert float(score) == pytest.approx(wanted[k], rel=1e-5)
            assert int(label) == (wanted[k] > detector.threshold_)
    assert process.communicate(timeout=600) == ("", "")
    assert process.returncode == 0


def test_watch__names_times_and_blanks__understood(model, capsys, monkeypatch):
    path, _, new = model
    lines = ["when,a,b,c\n", "\n"]
    lines += [f'"1, {k}",{line(point)}' for k, point in enumerate(new[:30].tolist())]
    monkeypatch.setattr("sys.stdin", lines)
    assert main(["watch", str(path), "--time", "when"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "time,score,label"
    assert [row.rsplit(",", 2)[0] for row in rows] == [f'"1, {k}"' for k in range(30)]
    monkeypatch.setattr("sys.stdin", [" ".join(map(repr, p)) for p in new[:30].tolist()])
    assert main(["watch", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [row.split('",')[1] for row in rows]


@pytest.mark.parametrize(
    ("sep", "decimal", "options"),
    [
        (";", ".", []),
        ("\t", ".", []),
        ("|", ".", []),
        (";", ",", ["--decimal", ","]),
        ("\t", ",", ["--decimal", ","]),
        (" ", ",", ["--decimal", ","]),
        (":", ".", ["--sep", ":"]),
    ],
)
@pytest.mark.parametrize("names", [True, False])
def test_watch__dialects__as_with_commas(sep, decimal, options, names, model, capsys, monkeypatch):
    path, _, new = model
    lines = [sep.join(names) for names in ["abc"] * names]
    lines += [sep.join(repr(x).replace(".", decimal) for x in point) for point in new[:30].tolist()]
    monkeypatch.setattr("sys.stdin", [line + "\n" for line in lines])
    assert main(["watch", str(path), *options]) == 0
    found = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", [line(point) for point in new[:30].tolist()])
    assert main(["watch", str(path)]) == 0
    assert found == capsys.readouterr().out


def test_watch__decimal_comma_or_encoding_not_said__error_says_how(
    model, capsys, monkeypatch, tmp_path
):
    path, _, new = model
    lines = [";".join(repr(x).replace(".", ",") for x in point) for point in new[:2].tolist()]
    monkeypatch.setattr("sys.stdin", ["a;b;c\n", *lines])
    assert main(["watch", str(path)]) == 1
    assert "add --decimal ," in capsys.readouterr().err
    for encoding in ("latin-1", "utf-16"):
        text = "größe;a;b;c\n" + "".join(
            f"1;{line(p).replace(',', ';')}" for p in new[:30].tolist()
        )
        (tmp_path / encoding).write_bytes(text.encode(encoding))
        for given, code in (([], 1), (["--encoding", encoding], 0)):
            with (tmp_path / encoding).open() as file:
                monkeypatch.setattr("sys.stdin", file)
                assert main(["watch", str(path), "--time", "größe", *given]) == code
            found = capsys.readouterr()
            assert ("--encoding" in found.err) == bool(code)
            assert len(found.out.splitlines()) == (31 if given else 1)


def test_watch__state__goes_on(model, capsys, monkeypatch, tmp_path):
    path, detector, new = model
    for part in (new[:40], new[40:80]):
        monkeypatch.setattr("sys.stdin", [line(point) for point in part.tolist()])
        assert main(["watch", str(path), "--state", str(tmp_path / "state")]) == 0
    found = [float(row.split(",")[0]) for row in capsys.readouterr().out.splitlines()[-40:]]
    assert_close(found, detector.decision_function(new[:80])[40:])


BAD_LINES = [
    ("1,2\n", "line 3: it has 2 values, but must have 3"),
    ("1,x,2\n", "line 3: could not convert string to float: 'x'"),
    ("1,,2\n", "line 3: Input X contains NaN in column 1"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_LINES)
def test_watch__bad_line__ends_or_is_skipped(model, bad, message, capsys, monkeypatch):
    path, _, new = model
    good = [line(point) for point in new[:20].tolist()]
    monkeypatch.setattr("sys.stdin", [*good[:2], bad, *good[2:]])
    assert main(["watch", str(path)]) == 1
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 3
    assert found.err.startswith(f"deepod watch: {message}")
    monkeypatch.setattr("sys.stdin", [*good[:2], bad, *good[2:]])
    assert main(["watch", str(path), "--skip-bad"]) == 0
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 21
    assert found.err.startswith(f"deepod watch: {message}")


def test_watch__what_cannot_be__explained(model, capsys, monkeypatch, tmp_path):
    path, _, new = model
    deepod.AutoEncoder(epochs=1).fit(new).save(tmp_path / "rows")
    series.RidgeAR(window=WINDOW).fit(new).save(tmp_path / "centred")
    monkeypatch.setattr("sys.stdin", ["a,b\n", "1,2\n"])
    for arguments, message in (
        ([tmp_path / "nothing"], "there is no such file or folder"),
        ([tmp_path / "rows"], "AutoEncoder scores rows of tables"),
        ([tmp_path / "centred"], "fit with smoothing='causal'"),
        ([path], "there are 2 channels (a, b), but the model was fitted on 3"),
        ([path, "--time", "c"], "0 columns have the name 'c'"),
    ):
        assert main(["watch", *map(str, arguments)]) == 1
        assert message in capsys.readouterr().err, arguments


@pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")
def test_watch__ctrl_c_or_nobody_reads__ends_without_a_word(model, tmp_path):
    path, _, new = model
    process = start_watch(path, "--state", tmp_path / "state")
    process.stdin.write(line(new[0].tolist()))
    process.stdin.flush()
    assert process.stdout.readline() == "score,label\n"
    assert process.stdout.readline() == "nan,0\n"  # it has begun to read
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 0
    assert process.stderr.read() == ""
    assert (tmp_path / "state").exists()

    process = start_watch(path)
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(line(new[0].tolist()))
    process.stdin.flush()
    assert process.wait(timeout=600) == 141
    assert process.stderr.read() == ""
