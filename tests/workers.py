"""How `make test` shares the tests among its workers: none may be left waiting while another has minutes to go."""

from xdist.scheduler import LoadScopeScheduling

FIRST = "gw0"


class FromBothEnds(LoadScopeScheduling):
    """A module at a time, as --dist loadscope does it; but the first worker takes modules from the beginning, all
    others from the end, until they meet.

    The browser tests stand at the beginning and take as long as all the others together. One worker does them with
    one JupyterLab; of what is left when the others have done the rest, they take their part, a chapter at a time.
    """

    def _assign_work_unit(self, node):
        if node.gateway.id != FIRST:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid):
        test, _, parameter = nodeid.partition("[")
        scope = super()._split_scope(test)
        # Each chapter is opened once for all its tests.
        return f"{scope}[{parameter}" if parameter and scope.startswith("tests/browser/") else scope
