"""Facts about the environment of a result: versions, commit, device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import deepod


def describe() -> dict[str, Any]:
    """Return the facts that all rows of a run share: versions and commit."""
    packages = ("numpy", "scikit-learn", "torch", "pyod")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"python": platform.python_version(), "deepod": deepod.__version__}
    try:
        _git("ls-files", "--error-unmatch", "deepod")  # not somebody else's repository around us
        commit = _git("rev-parse", "--short", "HEAD")
        # Results themselves do not count as a change.
        changed = _git("status", "--porcelain", "--", ".", ":!*.jsonl", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return {"versions": versions, "commit": None}
    return {"versions": versions, "commit": commit + ("-dirty" if changed else "")}


def machine() -> dict[str, Any]:
    """Return the model of the processor, and how many cores this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count()
    return {"cpu": device_name("cpu"), "cores": cores}


def load() -> float | None:
    """Return the load average of the last minute, if the system has one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def device_name(detector: Any) -> str:
    """Return the name of the processor or GPU that a fitted detector is on."""
    device = str(getattr(detector, "device_", getattr(detector, "device", "cpu")))
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*args: str) -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
