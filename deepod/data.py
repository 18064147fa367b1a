"""The older name of :mod:`deepod.sources`."""

from deepod.sources import Source, array, parquet

__all__ = ["Source", "array", "parquet"]
