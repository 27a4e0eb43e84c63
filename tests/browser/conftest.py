import os

import pytest

from tests.browser import lab


@pytest.fixture(scope="session")
def chrome():
    if lab.chromium() is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("no Chromium is installed (Debian: apt install chromium; elsewhere: playwright install chromium)")
    with lab.browser() as chrome:
        yield chrome
