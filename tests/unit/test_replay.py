"""Steps recorded as CUDA graphs give the same numbers. What the recorder leaves alone is tested without a GPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from gmvae_lib import replay
from gmvae_lib.data import load
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")


class FakeGraph:
    """Runs what was recorded, on the CPU."""

    def __init__(self, recorder):
        self.recorder, self.replays = recorder, 0

    def replay(self):
        self.replays += 1
        for kept, new in zip(self.recorder.outputs, self.recorder.step(*self.recorder.inputs), strict=True):
            kept.copy_(new)


@pytest.fixture
def recorder(monkeypatch):
    """A `Replayed` whose recording and streams are played by the CPU."""
    seen = []
    made = replay.Replayed(lambda index, beta: (seen.append(tuple(index.shape)), (index * beta,))[1])

    def record(inputs):
        made.inputs = made._tensors(inputs)
        made.outputs = made.step(*made.inputs)
        made.graph = FakeGraph(made)
        return True

    monkeypatch.setattr(made, "_aside", lambda inputs: made.step(*made._tensors(inputs)))
    monkeypatch.setattr(made, "_record", record)
    made.seen = seen
    return made


def test_each_call_gets_its_own_inputs_and_keeps_its_outputs(recorder):
    results = [recorder(torch.arange(4.0) + call, float(call))[0] for call in range(7)]
    for call, result in enumerate(results):
        assert torch.equal(result, (torch.arange(4.0) + call) * call)
    assert recorder.graph.replays == 7 - replay.WARM_UP


def test_a_batch_of_another_size_runs_as_it_is(recorder):
    for _ in range(6):
        recorder(torch.ones(4), 1.0)
        assert torch.equal(recorder(torch.ones(3), 2.0)[0], torch.full((3,), 2.0))
    assert recorder.graph.replays == 6 - replay.WARM_UP


def test_a_step_that_cannot_be_recorded_runs_as_it_is(recorder, monkeypatch):
    def record(inputs):
        recorder.recordable = False
        return False

    monkeypatch.setattr(recorder, "_record", record)
    results = [recorder(torch.ones(4), float(call))[0] for call in range(6)]
    assert [int(result[0]) for result in results] == list(range(6)) and recorder.graph is None


class Generator:
    """A generator of a GPU, as far as recordings concern it: its numbers wait for the end of one that has begun."""

    def __init__(self, device="cuda:0"):
        self.device, self.state, self.waits = device, 0, False

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state

    def graphsafe_set_state(self, other):
        self.state, self.waits = other.state, other.waits


class Recordings:
    """torch.cuda, as far as a recording that fails concerns it: it stays on the recording's stream."""

    def __init__(self, default):
        self.default_generators, self.here, self.recorded = [default], "the caller's", [default]

    def current_device(self):
        return 0

    def current_stream(self):
        return self.here

    @contextmanager
    def stream(self, stream):
        before, self.here = self.here, stream
        try:
            yield
        finally:
            self.here = before

    def CUDAGraph(self):
        return SimpleNamespace(register_generator_state=self.recorded.append)

    @contextmanager
    def graph(self, graph, capture_error_mode):
        self.here = "the recording's"
        for generator in self.recorded:
            generator.waits, generator.state = True, generator.state + 1
        yield
        raise AssertionError("the step was to fail")


def test_after_a_recording_that_fails_all_is_as_before(monkeypatch):
    ours, default = Generator(), Generator()
    ours.state, default.state = 3, 7
    cuda = Recordings(default)
    monkeypatch.setattr(replay, "torch", SimpleNamespace(cuda=cuda, Generator=Generator, Tensor=torch.Tensor))

    def step(index):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made = replay.Replayed(step, ours)
    with pytest.warns(RuntimeWarning, match=r"cannot be recorded.*\(operation not permitted [a-z ]+\)\.$"):
        assert made._record([torch.ones(4)]) is False
    assert not made.recordable and made.graph is None and cuda.here == "the caller's"
    assert (ours.state, ours.waits, default.state, default.waits) == (3, False, 7, False)


def trained(transform=None, epochs=6, **settings):
    torch.manual_seed(0)
    data = load("digits")
    model = VAE.build(64, 4, (32,), prior=MixturePrior(3, 4, "full"))
    history = fit(model, data.x[:700], epochs, batch_size=64, device="cuda", progress=False, transform=transform,
                  **settings)
    return model, history


@needs_cuda
@pytest.mark.parametrize("settings", [{}, {"prior_update": "em", "beta": lambda share: 0.5 + share},
                                      {"precision": "bfloat16", "lr": lambda share: 1e-3 * (1 - share)}])
def test_a_recorded_training_gives_what_the_same_steps_give_one_by_one(settings, monkeypatch):
    recorded, history = trained(**settings)
    monkeypatch.setattr(replay, "WARM_UP", 10**9)
    stepwise, expected = trained(**settings)
    tolerance = 2e-2 if settings.get("precision") == "bfloat16" else 1e-3
    assert history.distortion == pytest.approx(expected.distortion, rel=tolerance)
    assert history.rate == pytest.approx(expected.rate, rel=10 * tolerance)
    assert history.beta == expected.beta
    x = load("digits", "test").x
    assert torch.allclose(recorded.encode(recorded.check(x))[0], stepwise.encode(stepwise.check(x))[0], atol=0.1)


@needs_cuda
def test_a_transform_that_looks_at_values_is_named_and_trains_all_the_same():
    def nosy(x, generator):
        return x if x.sum().item() >= 0 else -x

    with pytest.warns(RuntimeWarning, match="cannot be recorded.*looks at values"):
        _, history = trained(nosy)
    assert history.distortion[-1] < history.distortion[0]


@needs_cuda
def test_a_recorded_training_resumes_to_the_same_model(tmp_path):
    whole, _ = trained(epochs=6)
    trained(epochs=3, checkpoint=tmp_path / "half.safetensors")
    resumed, history = trained(epochs=6, checkpoint=tmp_path / "half.safetensors", resume=True)
    assert len(history) == 6
    x = load("digits", "test").x
    assert torch.allclose(whole.encode(whole.check(x))[0], resumed.encode(resumed.check(x))[0], atol=0.05)
