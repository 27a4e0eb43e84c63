"""Networks against plain matrix products."""

import pytest
import torch

from gmvae_lib.network import MLP, Decoder, Encoder, Gate


def test_mlp_is_affine_maps_with_relu_between():
    mlp, x = MLP((4, 6, 5, 3)), torch.randn(10, 4)
    value = x
    for i, layer in enumerate(mlp.layers):
        value = value @ layer.weight.T + layer.bias
        value = value.clamp(min=0) if i < 2 else value
    assert torch.allclose(mlp(x), value, atol=1e-6)


def test_encoder_has_two_heads_and_its_log_variance_can_be_reset():
    encoder, x = Encoder(4, 2, (6,)), torch.randn(10, 4)
    mean, log_var = encoder(x)
    assert mean.shape == log_var.shape == (10, 2) and not torch.allclose(mean, log_var)
    encoder.reset_log_var(-2.0)
    again, reset = encoder(x)
    assert again.equal(mean) and reset.equal(torch.full((10, 2), -2.0))


def test_no_hidden_layer_is_a_linear_map():
    decoder, z = Decoder(2, 4, ()), torch.randn(10, 2)
    layer, = decoder.mlp.layers
    assert torch.allclose(decoder(z), z @ layer.weight.T + layer.bias, atol=1e-6)


def test_a_gate_is_a_sigmoid_of_log_beta():
    gate = Gate(5)
    expected = torch.sigmoid(gate.slope * torch.tensor(3.0).log() + gate.offset)
    assert torch.allclose(gate(3.0)[0], expected)
    each = gate(torch.tensor([[1.0], [3.0]]))
    assert each.shape == (2, 5) and torch.allclose(each[1], expected) and (each > 0).all() and (each < 1).all()


def test_a_gated_network_follows_beta_row_by_row():
    mlp, x = MLP((4, 6, 3), gated=True), torch.randn(2, 4)
    both = mlp(x, torch.tensor([[0.1], [10.0]]))
    assert torch.allclose(both[0], mlp(x, 0.1)[0], atol=1e-6) and torch.allclose(both[1], mlp(x, 10.0)[1], atol=1e-6)
    assert not torch.allclose(mlp(x, 0.1), mlp(x, 10.0))
    with pytest.raises(ValueError, match="gated by beta: pass beta, a number or a tensor"):
        mlp(x)


def test_a_gate_survives_beta_zero():
    """Warm-up starts there, and log 0 would make the slope's gradient NaN."""
    gate = Gate(5)
    gate(0.0).sum().backward()
    assert gate.slope.grad.isfinite().all() and gate(0.0).isfinite().all()


def test_gates_start_flat_or_steep():
    torch.manual_seed(0)
    flat, = MLP((4, 2000, 3), gated=True).gates
    assert flat.slope.std().item() == pytest.approx(0.1, rel=0.1) and (flat.offset == 2).all()
    steep, = MLP((4, 2000, 3), gated=2.0).gates
    assert steep.slope.std().item() == pytest.approx(2, rel=0.1)
    turns = (1 - steep.offset) / steep.slope
    assert turns.min() > -3.6 and turns.max() < 4.7  # log 0.03 and log 100
    assert turns.median().item() == pytest.approx(0.55, abs=0.3)
