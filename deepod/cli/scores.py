"""Writing of files of scores: .npy, or .csv with labels and optional keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from deepod._storage.atomic import prepare, replacing


@contextmanager
def written(
    out: Path, n: int, id_name: str | None = None, ids: Sequence[str] | None = None
) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Yield a function that writes scores and labels; the file gets its name at the end.

    A memory map is not used, because on a full disk it kills the process instead of raising
    OSError.
    """
    try:
        prepare(out)
        with replacing(out) as partial, partial.open("wb") as file:
            if out.suffix == ".npy":
                header = {"descr": "<f8", "fortran_order": False, "shape": (n,)}
                np.lib.format.write_array_header_1_0(file, header)
            else:
                front = [] if id_name is None else [_cell(id_name)]
                file.write((",".join([*front, "score", "label"]) + "\n").encode())
            written = 0

            def write(scores: np.ndarray, labels: np.ndarray) -> None:
                nonlocal written
                if out.suffix == ".npy":
                    file.write(scores.astype("<f8").tobytes())
                else:  # as many digits as tell a float64 from all others
                    pairs = zip(scores.tolist(), labels.tolist(), strict=True)
                    lines = (b"%r,%d\n" % pair for pair in pairs)
                    if ids is not None:
                        own = ids[written : written + len(scores)]
                        lines = (
                            f"{_cell(id_)},".encode() + line
                            for id_, line in zip(own, lines, strict=True)
                        )
                    file.writelines(lines)
                written += len(scores)

            yield write
    except OSError as error:
        raise OSError(f"--out {out}: {error}") from error


def _cell(text: str) -> str:
    """Return the text of a cell of CSV, quoted if necessary."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
