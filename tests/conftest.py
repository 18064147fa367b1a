import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# Before torch's first parallel region; several workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# No test depends on the clock: a loaded machine takes any time for an example.
settings.register_profile("any clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any clock")


@pytest.fixture(autouse=True)
def _skip_gpu_without_cuda(request):
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs CUDA")


@pytest.fixture
def stacks(monkeypatch):
    """Numbers of members of every training."""
    from deepod._training import together

    sizes = []
    train = together.train

    def counted(tasks, engine):
        sizes.append(len(tasks))
        return train(tasks, engine)

    monkeypatch.setattr(together, "train", counted)
    return sizes
