import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    """Each device that this machine has."""
    return request.param


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)
