"""Weights lie on grids of a power of two, and networks are trained through them."""

import torch

from pretraining.denoiser import Denoiser
from pretraining.muon import Muon, Shared, named
from pretraining.rounding import rounded


def test_rounded_weights_lie_on_a_grid_of_a_power_of_two() -> None:
    weights = torch.tensor([[-0.9, 0.3], [0.31, 1.1]])  # deviation 0.715, a quarter 0.179; in ratio nearest to 1/4
    assert rounded(weights, weights.shape, 4).tolist() == [[-1.0, 0.25], [0.25, 1.0]]
    many = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    grid = rounded(many, many.shape, 16)
    assert (grid - many).abs().max() <= 1 / 32
    assert torch.equal(rounded(grid, many.shape, 16), grid)
    assert torch.equal(grid.bfloat16().float(), grid)  # exact in what networks compute in
    assert torch.equal(rounded(many.flatten(), many.shape, 16), grid.flatten())


def test_biases_and_weights_that_are_all_alike_stay() -> None:
    biases, alike = torch.tensor([0.1, 0.7]), torch.full((2, 3), 0.7)
    assert torch.equal(rounded(biases, biases.shape, 16), biases)
    assert torch.equal(rounded(alike, alike.shape, 16), alike)


def test_small_steps_add_up_until_the_rounded_weight_moves() -> None:
    torch.manual_seed(0)
    network = torch.nn.Embedding(40, 40)  # tables are updated by AdamW, whose steps are as long as the rate
    model = torch.nn.ModuleDict({"embeddings": network})
    shared = Shared(model, dtype=torch.float32)
    optimizer, begun = Muon(model, shared), shared.working.clone()
    rate = 1 / 16 / 100  # a hundredth of a grid step
    for step in range(1, 121):
        network.weight.grad = torch.ones_like(network.weight)
        optimizer.step(rate, rate, step, ema_decay=0.5)
        if step == 1:
            assert (shared.working == begun).float().mean() > 0.95
    moved = begun - shared.working
    assert moved.mean() > 0.9 * 120 * rate
    assert torch.equal(shared.working, rounded(shared.weights, network.weight.shape, 16))


def test_two_processes_share_all_tensors_and_the_working_copy_is_what_ships() -> None:
    torch.manual_seed(0)
    model = Denoiser(50)
    shared = Shared(model, 2, dtype=torch.float32, rounding_steps=8)
    for tensor in (shared.working, shared.gradients, *shared.state_dict().values()):
        assert tensor.is_shared()
    working = named(model, shared.working)
    for name, weights in model.named_parameters():
        assert torch.equal(working[name], rounded(weights.detach(), weights.shape, 8)), name
