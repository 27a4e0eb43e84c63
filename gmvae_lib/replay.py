"""A step of training on an NVIDIA GPU, recorded once and then replayed as a whole: a CUDA graph.

Small networks leave a GPU waiting: each of a step's hundreds of operations keeps it busy for a few microseconds, and
takes Python longer than that to ask for. A recorded step is asked for at once (chapter 12).
"""

import warnings

import torch

WARM_UP = 3  # calls that run as they are: in the first ones, libraries set up what cannot be recorded


class Replayed:
    """A function of tensors and numbers, on one GPU, that is recorded at its fourth call and replayed from then on.

    Arguments:
        step: takes tensors and returns a tuple of tensors; numbers reach it as 0-dimensional tensors. What it changes,
            it must change in place, and it must not look at values (`.item()`, `if`, printing), which recording cannot
            see: then a RuntimeWarning says so, and every call runs as it is.
        generator: the `torch.Generator` on that GPU that step draws from, if any.
    Calls with other shapes than the first one's, such as an epoch's last batch, run as they are.
    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, step, generator=None):
        self.step, self.generator = step, generator
        self.calls, self.shapes, self.graph, self.recordable = 0, None, None, True

    def __call__(self, *inputs):
        shapes = [getattr(value, "shape", ()) for value in inputs]
        self.shapes = self.shapes or shapes
        if shapes != self.shapes or not self.recordable:
            return self.step(*self._tensors(inputs))
        if self.calls < WARM_UP:
            self.calls += 1
            return self._aside(inputs)
        if self.graph is None and not self._record(inputs):
            return self.step(*self._tensors(inputs))
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value) if isinstance(value, torch.Tensor) else place.fill_(value)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)

    def _tensors(self, inputs):
        """Copies of the inputs, numbers as tensors, on the inputs' device."""
        device = next(value.device for value in inputs if isinstance(value, torch.Tensor))
        return [value.clone() if isinstance(value, torch.Tensor) else torch.full((), value, device=device)
                for value in inputs]

    def _aside(self, inputs):
        """One call on a stream of its own, as what is to be recorded must have run before."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.step(*self._tensors(inputs))
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _record(self, inputs):
        """Records the step, without running it; returns whether that could be done."""
        self.inputs, graph = self._tensors(inputs), torch.cuda.CUDAGraph()
        generators = [torch.cuda.default_generators[torch.cuda.current_device()]]
        if self.generator is not None:
            graph.register_generator_state(self.generator)
            generators.append(self.generator)
        states = [generator.get_state() for generator in generators]
        here = torch.cuda.stream(torch.cuda.current_stream())  # to which a recording that fails does not come back
        try:
            with here, torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU
                self.outputs = self.step(*self.inputs)
        except RuntimeError as error:
            warnings.warn(f"A step of this training cannot be recorded, so it runs operation by operation, which may "
                          f"take several times as long. A transform or a model that looks at values, as .item() and if "
                          f"do, is the usual cause ({str(error).splitlines()[0]}).", RuntimeWarning, stacklevel=2)
            for generator, state in zip(generators, states, strict=True):  # which still wait for the recording's end
                fresh = torch.Generator(generator.device)
                fresh.set_state(state)
                generator.graphsafe_set_state(fresh)
            self.recordable = False
            return False
        self.graph = graph
        return True
