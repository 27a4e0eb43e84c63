"""Readers who move everything at random, for a moment; `make soak` lets them go on for thousands of moves."""

import gc

from tests.faults import restless


def test_random_moves_leave_no_error_thread_widget_comm_figure_or_panel():
    panels = {name: restless.play(name, 20) for name in sorted(restless.exported())}
    assert len(panels) > 12
    gc.collect()  # once for all: it takes longer than the moves
    assert [name for name, panel in panels.items() if panel() is not None] == []
