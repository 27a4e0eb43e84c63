"""The tests are shared among the workers so that all end together, each test run once and a chapter's by one worker."""

from types import SimpleNamespace

import pytest

from tests.workers import FromBothEnds

CHAPTERS = [f"tests/browser/test_chapters.py::test_{what}[0{n}.ipynb]" for n in range(6) for what in ("a", "b", "c")]
OTHERS = [f"tests/unit/test_{name}.py::test_{n}[x::y]" for name in "abc" for n in range(3)]
CLASS = [f"tests/unit/test_d.py::TestIt::test_{n}" for n in range(3)]
BOOK = [f"notebooks/01.ipynb::Cell {n}" for n in range(5)]
TESTS = [*CHAPTERS, *OTHERS, *CLASS, *BOOK]


class Worker:
    def __init__(self, name):
        self.gateway, self.shutting_down, self.todo, self.done = SimpleNamespace(id=name), False, [], []

    def send_runtest_some(self, indices):
        self.todo += indices

    def shutdown(self):
        self.shutting_down = True


def run(seconds, n_workers=2):
    """The workers after a run in which test i takes seconds(i), and each worker's time."""
    settings = {"tx": ["popen"] * n_workers, "dist": "loadscope", "loadscopereorder": False}
    config = SimpleNamespace(getvalue=settings.get, option=SimpleNamespace(**settings))
    workers, clock = [Worker(f"gw{i}") for i in range(n_workers)], [0.0] * n_workers
    scheduler = FromBothEnds(config)
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    while any(worker.todo for worker in workers):
        i = min((i for i in range(n_workers) if workers[i].todo), key=lambda i: clock[i])
        test = workers[i].todo.pop(0)
        clock[i] += seconds(TESTS[test])
        workers[i].done.append(TESTS[test])
        scheduler.mark_test_complete(workers[i], test)
    assert scheduler.tests_finished
    return workers, clock


@pytest.mark.parametrize("n_workers", [1, 2, 4])
@pytest.mark.parametrize("browser", [0.1, 1.0, 30.0])
def test_every_test_runs_once_and_a_scope_s_by_one_worker(browser, n_workers):
    workers, _ = run(lambda test: browser if test in CHAPTERS else 1.0, n_workers)
    assert sorted(test for worker in workers for test in worker.done) == sorted(TESTS)
    for scope in ([test for test in TESTS if test.endswith("[03.ipynb]")], CLASS, BOOK, OTHERS[:3]):
        assert [worker.done[worker.done.index(scope[0]):][:len(scope)] for worker in workers
                if scope[0] in worker.done] == [scope]


@pytest.mark.parametrize("browser", [0.1, 1.0, 30.0])
def test_no_worker_waits_for_more_than_a_chapter(browser):
    workers, clock = run(lambda test: browser if test in CHAPTERS else 1.0)
    assert abs(clock[0] - clock[1]) <= 2 * 3 * max(browser, 1.0)


def test_one_worker_does_the_browser_s_while_there_is_something_else():
    workers, _ = run(lambda test: 1.0)
    assert workers[0].done[:len(CHAPTERS)] == CHAPTERS and not set(CHAPTERS) & set(workers[1].done)
