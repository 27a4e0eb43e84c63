import os

import pytest
import torch

ASKED = os.environ.get("GMVAE_TEST_DEVICES")  # such as "cuda"
DEVICES = ASKED.split() if ASKED else ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    """Each device that this machine has, or those that the environment variable GMVAE_TEST_DEVICES names."""
    return request.param


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)
