"""Rows on disk: sources, buffers in random order, statistics of what is too much to keep."""

import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepod import data, sources
from deepod._inputs import rows as _rows
from deepod._inputs import scaling
from deepod._inputs.stream import Stream, shuffled
from deepod._scoring import sketch
from deepod._scoring.sketch import Scores

SCALERS = ["standard", "minmax", "symmetric", None]


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def rows_of(n, width=3):
    """Rows that say where they are."""
    return np.arange(n, dtype=np.float32)[:, None] + np.linspace(0, 0.5, width, dtype=np.float32)


def stream_of(X, limit, **options):
    X = data.array(X) if isinstance(X, np.ndarray) else X
    return Stream(X, X.shape[1:], limit, np.random.default_rng(0), **options)


class Chunked:
    """An array with chunks, as zarr's and HDF5's are, that counts what is read at once."""

    def __init__(self, X, rows):
        self._X, self.shape, self.dtype, self.chunks = X, X.shape, X.dtype, (rows, X.shape[1])
        self.largest = 0

    def __getitem__(self, rows):
        part = self._X[rows]
        self.largest = max(self.largest, len(part))
        return part


def write(folder, X, *, sizes, row_group_size=7):
    """Write a table to Parquet files of the given numbers of rows."""
    columns = {f"c{i}": X[:, i] for i in range(X.shape[1])}
    table, start = pa.table(columns), 0
    for i, size in enumerate(sizes):
        part = table.slice(start, size)
        pq.write_table(part, folder / f"{i}.parquet", row_group_size=row_group_size)
        start += size
    return folder


# --- sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_array__memory_map__blocks_cover_it_and_read_what_they_say(tmp_path, dtype):
    X = np.random.default_rng(0).integers(0, 9, (300_000, 2)).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    source = data.array(np.load(tmp_path / "X.npy", mmap_mode="r"))
    assert isinstance(source, data.Source)
    assert (source.shape, source.dtype, len(source)) == (X.shape, X.dtype, len(X))
    blocks = source.blocks()
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate([source.read(*b) for b in blocks]), X)


def test_array__chunks__are_the_blocks():
    source = data.array(Chunked(rows_of(25), 10))
    assert source.blocks() == [(0, 10), (10, 20), (20, 25)]


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=4).filter(sum),
    row_group_size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_parquet__any_files_and_row_groups__any_range_is_read(
    tmp_path_factory, sizes, row_group_size, seed
):
    X = rows_of(sum(sizes))
    folder = write(tmp_path_factory.mktemp("rows"), X, sizes=sizes, row_group_size=row_group_size)
    source = data.parquet(folder)
    assert isinstance(source, data.Source)
    assert source.shape == X.shape
    assert source.dtype == np.float32
    assert source.feature_names == ["c0", "c1", "c2"]
    blocks = source.blocks()
    assert max(stop - start for start, stop in blocks) <= row_group_size
    assert [b[0] for b in blocks[1:]] == [b[1] for b in blocks[:-1]]
    rng = np.random.default_rng(seed)
    for start, stop in np.sort(rng.integers(0, len(X) + 1, (20, 2))):
        np.testing.assert_array_equal(source.read(start, stop), X[start:stop])


def test_parquet__large_row_group__read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_BATCH_VALUES", 30)
    X = rows_of(100)
    source = data.parquet(write(tmp_path, X, sizes=[100], row_group_size=100))
    order = [(0, 5), (5, 37), (90, 100), (3, 4), (4, 4), (50, 60)]
    for start, stop in order:
        np.testing.assert_array_equal(source.read(start, stop), X[start:stop])


def test_parquet__file_list_of_files_dataset__the_same(tmp_path):
    X = rows_of(20)
    write(tmp_path, X, sizes=[12, 8])
    files = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for given_as in (files, tmp_path, str(tmp_path), pads.dataset(tmp_path, format="parquet")):
        np.testing.assert_array_equal(data.parquet(given_as).read(0, 20), X)
    assert len(data.parquet(files[0])) == 12


def test_parquet__columns__chosen_in_their_order(tmp_path):
    X = rows_of(10)
    source = data.parquet(write(tmp_path, X, sizes=[10]), columns=["c2", "c0"])
    assert source.feature_names == ["c2", "c0"]
    np.testing.assert_array_equal(source.read(0, 10), X[:, [2, 0]])


def test_parquet__integers_booleans_nulls__become_floats(tmp_path):
    table = {
        "small": pa.array([1, None, 3], pa.int16()),
        "flag": pa.array([True, False, None]),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "large": pa.array([2**40, -(2**40), None], pa.int64()),
    }
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    source = data.parquet(tmp_path / "x.parquet")
    assert source.dtype == np.float64
    expected = [[1, 1, 0.5, 2**40], [np.nan, 0, 1, -(2**40)], [3, np.nan, 2, np.nan]]
    np.testing.assert_array_equal(source.read(0, 3), expected)
    assert data.parquet(tmp_path / "x.parquet", ["small", "flag"]).dtype == np.float32


def test_parquet__what_cannot_be_read__refused_and_says_why(tmp_path):
    table = pa.table({"x": [1.0, 2.0], "city": ["Ulm", "Bonn"]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"'city'.*string.*not numeric.*columns="):
        data.parquet(tmp_path / "x.parquet").read(0, 1)
    with pytest.raises(ValueError, match=r"no column 'y'.*\['x', 'city'\]"):
        data.parquet(tmp_path / "x.parquet", ["y"])
    with pytest.raises(ValueError, match="no column to read"):
        data.parquet(tmp_path / "x.parquet", [])
    with pytest.raises(FileNotFoundError):
        data.parquet(tmp_path / "missing.parquet")
    with pytest.raises(ValueError, match="not in Parquet format"):
        data.parquet(pads.dataset(table))
    with pytest.raises(ValueError, match="filter"):
        data.parquet(pads.dataset(tmp_path, format="parquet").filter(pads.field("x") > 1))


def test_parquet__no_pyarrow__says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"deepod\[data\]"):
        data.parquet("x.parquet")


# --- buffers in random order --------------------------------------------------------------------

blocks_of_any_size = st.lists(st.integers(1, 300), min_size=1, max_size=30)


class Blocks:
    """Ranges without rows."""

    def __init__(self, sizes, turns):
        self.ends, self.turns = np.cumsum(sizes).tolist(), turns

    def __len__(self):
        return self.ends[-1]

    def blocks(self):
        return list(zip([0, *self.ends[:-1]], self.ends, strict=True))


@settings(max_examples=30)
@given(
    sizes=blocks_of_any_size,
    turns=st.none() | st.integers(1, 9),
    most=st.integers(2, 500),
    seed=st.integers(0, 99),
)
def test_shuffled__every_row_once__in_even_buffers_that_repeat(sizes, turns, most, seed):
    source = Blocks(sizes, turns)
    buffers = list(shuffled(source, most, generator(seed)))
    rows = np.concatenate([np.arange(*part) for buffer in buffers for part in buffer])
    np.testing.assert_array_equal(np.sort(rows), np.arange(sum(sizes)))
    lengths = [sum(stop - start for start, stop in buffer) for buffer in buffers]
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert buffers == list(shuffled(source, most, generator(seed)))


@settings(max_examples=20)
@given(
    n=st.integers(2, 2000),
    limit=st.integers(1, 1 << 16),
    batch_size=st.integers(1, 300),
    chunk=st.integers(1, 500),
    seed=st.integers(0, 99),
)
def test_buffers__cut_into_batches__every_row_once_and_no_batch_of_one(
    n, limit, batch_size, chunk, seed
):
    X = rows_of(n)
    source = Chunked(X, chunk)
    stream = stream_of(data.array(source), limit)
    scaler, _, _ = stream.survey(None)
    source.largest = 0
    seen, order, sizes = [], generator(seed), []
    for x, y in stream.buffers(scaler, order):
        assert y is None
        assert x.dtype == np.float32
        assert x.nbytes <= max(limit / 8, 4 * X[0].nbytes)
        x = torch.from_numpy(x)
        for rows in _rows.even_parts(torch.randperm(len(x), generator=order), batch_size):
            seen.append(x[rows])
            sizes.append(len(rows))
    np.testing.assert_array_equal(np.sort(torch.cat(seen).numpy(), axis=0), X)
    assert source.largest <= max(1, stream.most_rows // 64)
    if batch_size > 1:
        assert min(sizes) > 1
        assert max(sizes) <= max(batch_size, 3)


def test_buffers__sorted_file__mixed():
    X = np.linspace(0, 1, 100_000, dtype=np.float32)[:, None]
    stream = stream_of(X, 8 * 4 * 5000)
    scaler, _, _ = stream.survey(None)
    buffers = [x.copy() for x, _ in stream.buffers(scaler, generator())]
    assert len(buffers) == 20
    for x in buffers:  # the whole range, evenly
        assert np.histogram(x, bins=4, range=(0, 1))[0].min() > 5000 / 4 / 3
    again = [x.copy() for x, _ in stream.buffers(scaler, generator())]
    np.testing.assert_array_equal(again, buffers)
    other = [x.copy() for x, _ in stream.buffers(scaler, generator(1))]
    assert not np.array_equal(other, buffers)


def test_buffers__large_row_groups__each_decoded_once_an_epoch(tmp_path, monkeypatch):
    X = rows_of(2000)
    source = data.parquet(write(tmp_path, X, sizes=[1000, 1000], row_group_size=200))
    stream = stream_of(source, 8 * 4 * 3 * 128)
    scaler, _, _ = stream.survey(None)
    decoded, decode = [], source._decode
    monkeypatch.setattr(source, "_decode", lambda g: decoded.append(g.start) or decode(g))
    buffers = [x.copy() for x, _ in stream.buffers(scaler, generator())]
    assert sorted(decoded) == list(range(0, 2000, 200))
    assert min(len(np.unique(x[:, 0] // 200)) for x in buffers[:-3]) >= 3  # row groups in each
    np.testing.assert_array_equal(np.sort(np.concatenate(buffers), axis=0), X)


def test_buffers__rows_held_out_and_labels__kept_apart_and_together():
    X, y = rows_of(1000), np.arange(1000) % 3 == 0
    stream = stream_of(X, 8 * 4 * 3 * 200, y=y.astype(int), held_out=0.1)
    scaler, sample, watched = stream.survey(None)
    np.testing.assert_array_equal(watched, X[stream.held_out])
    np.testing.assert_array_equal(sample, X[stream.sampled])
    assert len(watched) == 100
    assert 150 < len(sample) <= 200
    assert not set(stream.held_out) & set(stream.sampled)
    xs, ys = zip(*[(x.copy(), y) for x, y in stream.buffers(scaler, generator())], strict=True)
    rows = np.concatenate(xs)[:, 0].astype(int)
    np.testing.assert_array_equal(np.concatenate(ys), y[rows])
    np.testing.assert_array_equal(np.sort([*rows, *stream.held_out]), np.arange(1000))


# --- one pass of statistics ---------------------------------------------------------------------


@settings(max_examples=15)
@given(
    n=st.integers(2, 500),
    shape=st.sampled_from([(3,), (4, 2), (2, 3, 3)]),
    scaler=st.sampled_from(SCALERS),
    offset=st.floats(-1e6, 1e6),
    block=st.integers(1, 300),
)
def test_survey__scaler__is_the_one_of_the_array(n, shape, scaler, offset, block):
    X = offset + np.random.default_rng(n).normal(size=(n, *shape))
    expected = scaling.Scaler.fit([X], shape, scaler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "_BLOCK_VALUES", block)
        found, sample, _ = stream_of(X, 1 << 30).survey(scaler)
    np.testing.assert_allclose(found.shift, expected.shift, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-8)
    np.testing.assert_array_equal(sample, found.transform(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaler__pieces_of_any_size__keep_no_more_than_the_largest_needs(dtype):
    X = np.random.default_rng(0).normal(size=(700, 3)).astype(dtype)
    scaler = scaling.Scaler.fit([X], (3,), "standard")
    whole = scaler.transform(X)
    held = sum(term.nbytes for terms in scaler._known.values() for term in terms)
    again = scaling.Scaler.fit([X], (3,), "standard")
    for n in (3, 700, 1, 150, 699):
        np.testing.assert_array_equal(again.transform(X[:n]), whole[:n])
    assert sum(term.nbytes for terms in again._known.values() for term in terms) == held


def test_survey__anomalies_and_rows_held_out__not_learned_from():
    X = rows_of(1000)
    y = (X[:, 0] > 500).astype(int)
    stream = stream_of(X, 1 << 20, y=y, held_out=0.2)
    scaler, _, _ = stream.survey("minmax")
    rest = np.setdiff1d(np.arange(501), stream.held_out)
    np.testing.assert_array_equal(scaler.shift, X[rest].min(0))
    np.testing.assert_allclose(scaler.scale, np.ptp(X[rest], axis=0))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (np.inf, "infinity")])
@pytest.mark.parametrize("scaler", SCALERS)
def test_survey__not_finite__refused_by_name(value, message, scaler):
    X = rows_of(100)
    X[70, 1] = value
    with pytest.raises(ValueError, match=f"Input X contains {message}.* in column 'b'"):
        stream_of(X, 1 << 20, columns="abc").survey(scaler)


# --- scores -------------------------------------------------------------------------------------

TO_COME = {
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "sorted": lambda rng, n: np.sort(rng.normal(size=n)),
    "reversed": lambda rng, n: np.sort(rng.standard_t(2, size=n))[::-1],
    "ties": lambda rng, n: np.round(rng.exponential(size=n), 1),
    "far apart": lambda rng, n: np.concatenate([rng.normal(size=n // 2), np.full(n // 2, 1e6)]),
    "constant": lambda rng, n: np.full(n, 0.1),
}


@pytest.mark.parametrize("case", TO_COME)
def test_scores__too_many__quantiles_within_the_documented_error(case, monkeypatch):
    monkeypatch.setattr(sketch, "_STAND_INS", 10_001)  # the ranks below are among them
    rng, n = np.random.default_rng(zlib.crc32(case.encode())), 100_000
    # As modules give them out: float32.
    scores = TO_COME[case](rng, n).astype(np.float32).astype(np.float64)

    def sketched():
        collected = Scores(n, 1 << 20)
        assert not collected.complete
        for part in np.array_split(scores, 97):
            collected.add(part)
        return collected.result()

    found = sketched()
    ordered = np.sort(scores)
    assert (found[0], found[-1]) == (ordered[0], ordered[-1])
    ranks = np.array([1e-3, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
    values = np.quantile(found, ranks)
    below, up_to = (np.searchsorted(ordered, values, side) / n for side in ("left", "right"))
    off = np.maximum(np.maximum(below - ranks, ranks - up_to), 0)
    assert off.max() < 1e-4
    assert off[ranks >= 0.9].max() < 3e-5
    np.testing.assert_array_equal(sketched(), found)


def test_scores__few__all_of_them():
    collected, scores = Scores(1000, 1 << 20), np.random.default_rng(0).normal(size=1000)
    collected.add(scores[:300])
    collected.add(scores[300:])
    assert collected.complete
    np.testing.assert_array_equal(collected.result(), scores)
