import pytest
import torch
from torch import nn
from torch.nn import functional

from orthoplex.activations.erasure_statistics import ErasureStatistics, collecting
from orthoplex.activations.foreign_inputs import PositionWeights
from orthoplex.adapters import METHODS, AdapterConfig, create_adapter
from orthoplex.errors import OrthoplexError
from orthoplex.training.erasure import ActivationErasure, is_due

LAYER = "unet.a"


def make_adapter(method="orthogonal", *, out_features=3, in_features=4, rank=2, layer=LAYER, **options):
    rank = "proportional" if method == "full" else rank
    config = AdapterConfig(method=method, rank=rank, slot=0, slots=2, **options)
    return create_adapter(
        config, layer=layer, out_features=out_features, in_features=in_features, concept_id="x", seed=0
    )


def penalty_of(adapters, statistics):
    return ActivationErasure(adapters, statistics).penalty(0)


def gathered(linear, adapter, *inputs):
    with collecting({LAYER: linear}, {LAYER: adapter}) as collector:
        for x in inputs:
            linear(x)
    return collector.statistics()


def direct(linear, adapter, x):
    """``E‖ΔW x‖² / E‖W x‖²`` straight from the inputs."""
    change, output = adapter(x), functional.linear(x, linear.weight)
    return change.square().sum(-1).mean() / output.square().sum(-1).mean()


def test_numbers_written_out():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    adapter = make_adapter(out_features=2, in_features=2, rank=1)
    adapter.down.copy_(torch.tensor([[1.0, 1.0]]))
    adapter.up.data = torch.tensor([[1.0], [3.0]])
    # x = (1, 0) and (1, 1): z = 1, 2; mean z² = 2.5; ‖up‖² = 10; E‖ΔW x‖² = 25; E‖W x‖² = (1 + 5) / 2 = 3
    statistics = gathered(linear, adapter, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert statistics[LAYER].frozen
    assert statistics[LAYER].gram.item() == pytest.approx(2.5 / 3)
    assert penalty_of({LAYER: adapter}, statistics).item() == pytest.approx(25 / 3)


def test_positions_count_as_they_are_weighed_where_the_text_is_seen():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.eye(2)
    adapter = make_adapter("lora", out_features=2, in_features=2, rank=1)
    x = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    for weights in ([0.5, 1.5], [1.0, 1.0]):
        with collecting({LAYER: linear}, {LAYER: adapter}) as collector:
            if weights != [1.0, 1.0]:  # the weights of layers that see pictures
                rows = torch.tensor([weights])
                collector.weights = {LAYER: PositionWeights(rows, rows < 0)}
            linear(x)
        first, second = weights
        expected = torch.tensor([[first + 9 * second, 2 * first], [2 * first, 4 * first]])
        torch.testing.assert_close(collector.statistics()[LAYER].gram, expected / expected.trace())


def test_trained_down_keeps_the_whole_matrix():
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.eye(2)
    adapter = make_adapter("lora", out_features=2, in_features=2, rank=1)
    statistics = gathered(linear, adapter, torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    # Σ x xᵀ = [[10, 2], [2, 4]] and Σ ‖W x‖² = 14
    assert not statistics[LAYER].frozen
    torch.testing.assert_close(statistics[LAYER].gram, torch.tensor([[10.0, 2.0], [2.0, 4.0]]) / 14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", [None, 5.0])
def test_equals_the_direct_estimate(method, alpha):
    torch.manual_seed(0)
    linear, adapter = nn.Linear(4, 3), make_adapter(method, alpha=alpha)
    adapter.up.data.normal_()
    x = torch.randn(2, 5, 4)
    statistics = gathered(linear, adapter, x[0], x[1:])
    torch.testing.assert_close(penalty_of({LAYER: adapter}, statistics), direct(linear, adapter, x))


@pytest.mark.parametrize("method", METHODS)
def test_gradient_equals_the_direct_one(method):
    torch.manual_seed(0)
    linear, adapter = nn.Linear(4, 3), make_adapter(method)
    adapter.up.data.normal_()
    x = torch.randn(7, 4)
    penalty_of({LAYER: adapter}, gathered(linear, adapter, x)).backward()
    ours = {name: parameter.grad.clone() for name, parameter in adapter.named_parameters()}
    adapter.zero_grad()
    direct(linear, adapter, x).backward()
    assert set(ours) == ({"up"} if method in ("orthogonal", "dual", "full") else {"up", "down"})
    for name, parameter in adapter.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad)


def test_statistics_hold_while_the_adapter_learns():
    torch.manual_seed(0)
    linear, adapter, x = nn.Linear(4, 3), make_adapter("lora"), torch.randn(6, 4)
    statistics = gathered(linear, adapter, x)
    for parameter in adapter.parameters():
        parameter.data.normal_()
    torch.testing.assert_close(penalty_of({LAYER: adapter}, statistics), direct(linear, adapter, x))


def test_an_untrained_adapter_is_silent():
    adapter = make_adapter()
    assert penalty_of({LAYER: adapter}, gathered(nn.Linear(4, 3), adapter, torch.randn(5, 4))).item() == 0.0


def test_the_bias_is_no_part_of_the_output_energy():
    linear = nn.Linear(4, 3)
    adapter, x = make_adapter(), torch.randn(5, 4)
    before = gathered(linear, adapter, x)[LAYER].gram
    linear.bias.data += 100.0
    assert torch.equal(before, gathered(linear, adapter, x)[LAYER].gram)


def test_penalty_is_the_mean_over_layers():
    adapters = {"unet.a": make_adapter(layer="unet.a"), "unet.b": make_adapter(layer="unet.b")}
    for adapter, value in zip(adapters.values(), (1.0, 2.0), strict=True):
        adapter.up.data.fill_(value)
    unit = ErasureStatistics(torch.eye(2), frozen=True)
    # ‖up‖² of a 3 x 2 matrix: 6 and 24
    assert penalty_of(adapters, {"unet.a": unit, "unet.b": unit}).item() == 15.0


def test_minimising_it_makes_the_update_silent_there_only():
    torch.manual_seed(0)
    linear, adapter = nn.Linear(4, 3), make_adapter("orthogonal", rank=4, down_scale=1.0)
    foreign = torch.randn(50, 4) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    statistics = gathered(linear, adapter, foreign)
    adapter.up.data.normal_()
    own = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    before = adapter(own).detach()
    optimizer = torch.optim.SGD([adapter.up], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        penalty_of({LAYER: adapter}, statistics).backward()
        optimizer.step()
    assert adapter(foreign).abs().max() < 1e-3
    torch.testing.assert_close(adapter(own), before, atol=1e-4, rtol=0)


def test_hooks_are_gone_afterwards_also_after_an_error():
    linear, adapter = nn.Linear(4, 3), make_adapter()
    with pytest.raises(RuntimeError, match="stop"), collecting({LAYER: linear}, {LAYER: adapter}) as collector:
        raise RuntimeError("stop")
    linear(torch.randn(1, 4))
    with pytest.raises(OrthoplexError, match=f"layer {LAYER}: foreign prompts gave output energy 0.0"):
        collector.statistics()


def test_a_layer_without_energy_is_named():
    linear = nn.Linear(4, 3)
    linear.weight.data.zero_()
    with pytest.raises(OrthoplexError, match=f"layer {LAYER}: foreign prompts gave output energy 0.0"):
        gathered(linear, make_adapter(), torch.randn(2, 4))


@pytest.mark.parametrize(("share", "count"), [(1.0, 12), (0.5, 6), (0.25, 3), (0.1, 1), (1 / 3, 4)])
def test_due_steps_are_the_share_asked_for_and_spread_evenly(share, count):
    due = [step for step in range(12) if is_due(step, share)]
    assert len(due) == count
    assert all(abs((later - earlier) - 1 / share) < 1 for earlier, later in zip(due, due[1:], strict=False))
