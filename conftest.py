import os

import pytest
from hypothesis import settings

# The same examples on every machine, however slow: a failure means that something broke.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")

# Kernels that nbval starts take this over: saved outputs hold no progress bars.
os.environ["GMVAE_PROGRESS"] = "0"


@pytest.hookimpl(optionalhook=True)  # without xdist nobody asks
def pytest_xdist_make_scheduler(config, log):
    """--dist loadscope, in the order of `tests.workers`."""
    from tests.workers import FromBothEnds

    return FromBothEnds(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_terminal_summary(terminalreporter):
    """Print what tests measured; xdist would swallow their own output."""
    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    measured = [f"{name}: {value}" for report in reports for name, value in getattr(report, "user_properties", [])]
    if measured:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(measured))
