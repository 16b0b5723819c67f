"""What holds for every method with every basis. A new line in ``METHODS`` or ``ALGORITHMS`` is tested from here on."""

import itertools
from typing import get_args

import pytest
import torch

from orthoplex.adapters import METHODS, Adapter, AdapterConfig, Basis, create_adapter
from orthoplex.concepts import BaseIdentity, Concept, Manifest, Stack, load_concept, save_concept
from orthoplex.merging import ALGORITHMS, InputGrams, merge
from orthoplex.subspaces import overlap
from tests.folding import folded_weight
from tests.pico import tokens_of

CASES = [(method, basis) for method in METHODS for basis in get_args(Basis)]
CASES += [("blockwise columns", "slot")]
SHAPES = [(24, 64), (64, 64), (256, 128), (40, 192), (16, 320)]
BASE = BaseIdentity(family="vignette", hash="ab" * 32, name="vignette")


def build(method: str, basis: str, shape: tuple[int, int] = (24, 64), *, slot: int = 0, **options) -> Adapter:
    method, _, blocks = method.partition(" ")
    config = AdapterConfig(method=method, basis=basis, slot=slot, blocks=blocks or "rows", **options)
    out_features, in_features = shape
    return create_adapter(
        config,
        layer=f"unet.{out_features}x{in_features}",
        out_features=out_features,
        in_features=in_features,
        concept_id=f"concept-{slot}",
        seed=slot,
    )


def trained(method: str, basis: str, shape: tuple[int, int] = (24, 64), *, slot: int = 0, **options) -> Adapter:
    """Return an adapter after three steps of gradient descent towards a random change."""
    adapter = build(method, basis, shape, slot=slot, **options)
    generator = torch.Generator().manual_seed(slot)
    target, x = torch.randn(shape, generator=generator), torch.randn(40, shape[1], generator=generator)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (adapter(x) - x @ target.T).square().mean().backward()
        optimizer.step()
    assert adapter.delta().abs().max() > 1e-3
    return adapter


def as_concept(name: str, adapters: list[Adapter]) -> Concept:
    manifest = Manifest(
        name=name, kind="subject", class_word="dog", trigger=f"<{name}> dog", base=BASE, method="orthogonal"
    )
    return Concept(
        manifest,
        {adapter.site.layer: adapter.factors() for adapter in adapters},
        tokens_of({f"<{name}>": torch.ones(4)}),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("method", "basis"), CASES)
def test_a_new_adapter_changes_nothing(method, basis, shape):
    adapter = build(method, basis, shape)
    assert torch.equal(adapter.delta().abs(), torch.zeros(shape))
    assert torch.equal(adapter(torch.ones(3, shape[1])).abs(), torch.zeros(3, shape[0]))


@pytest.mark.parametrize(("method", "basis"), CASES)
def test_a_new_adapter_can_learn(method, basis):
    """Nothing is stuck: the first gradient reaches the factors that are trained."""
    adapter = build(method, basis)
    adapter(torch.randn(8, 64, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert adapter.up.grad is not None and adapter.up.grad.abs().max() > 0


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize(("method", "basis"), CASES)
def test_forward_delta_and_factors_agree(method, basis, alpha):
    adapter = trained(method, basis, alpha=alpha)
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(adapter(x), x @ adapter.delta().T, atol=1e-5, rtol=1e-5)
    assert torch.equal(adapter.factors().delta(), adapter.delta())


@pytest.mark.parametrize(("method", "basis"), CASES)
def test_strength_zero_is_the_base_and_one_the_concept(method, basis):
    adapter = trained(method, basis, alpha=3.0)
    assert torch.equal(adapter.delta(0.0).abs(), torch.zeros(24, 64))
    torch.testing.assert_close(adapter.delta(-0.5), -0.5 * adapter.delta())
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(folded_weight(weight, Stack.of(None, adapter.factors().scaled(0.0))), weight)


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize(("method", "basis"), CASES)
def test_factors_load_exactly(method, basis, alpha):
    factors = trained(method, basis, slot=1, alpha=alpha).factors()
    other = build(method, basis, slot=2, alpha=alpha)
    other.load_factors(factors)
    assert torch.equal(other.factors().up, factors.up)
    assert torch.equal(other.factors().down, factors.down)
    assert torch.equal(other.delta(), factors.delta())


@pytest.mark.parametrize(("method", "basis"), CASES)
def test_saved_concept_loads_exactly(method, basis, tmp_path):
    concept = as_concept("rex", [trained(method, basis, shape) for shape in SHAPES[:2]])
    save_concept(concept, tmp_path / "rex.safetensors")
    loaded = load_concept(tmp_path / "rex.safetensors", base=BASE)
    assert loaded.content_hash == concept.content_hash
    for layer, change in concept.layers.items():
        assert torch.equal(loaded.layers[layer].up, change.up)
        assert torch.equal(loaded.layers[layer].down, change.down)


NEUTRAL = {
    "ties": {"density": 1},
    "dare": {"drop": 0},
    "dare-ties": {"drop": 0},
    "knots-ties": {"density": 1},
    "least-squares": {"ridge": 0},
    "ssr": {"ridge": 0},
    "custom-diffusion": {"threshold": 0, "directions": 0, "ridge": 0},
    "loraclr": {"weight": 0},
}
EXACT = ("sum", "mean", "ties", "dare", "dare-ties")
CHANGES_ONE_ALONE = ("iso-c",)  # its singular values are made equal


def inputs_of(concepts: list[Concept]) -> InputGrams:
    """Gram matrices of random inputs, for every layer."""
    grams, foreign = {}, {}
    for number, concept in enumerate(concepts):
        generator = torch.Generator().manual_seed(number)
        grams[concept.content_hash] = {
            layer: (x := torch.randn(200, change.shape[1], generator=generator)).T @ x / len(x)
            for layer, change in concept.layers.items()
        }
        foreign |= {layer: torch.eye(len(gram)) for layer, gram in grams[concept.content_hash].items()}
    return InputGrams(grams, foreign)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name not in CHANGES_ONE_ALONE])
@pytest.mark.parametrize(("method", "basis"), CASES)
def test_merging_one_concept_returns_it(method, basis, algorithm):
    adapter = trained(method, basis)
    concept = as_concept("rex", [adapter])
    merged = merge(
        [(concept, 1.0)], algorithm=algorithm, options=NEUTRAL.get(algorithm), inputs=inputs_of([concept])
    ).layers[adapter.site.layer]
    if algorithm in EXACT:
        assert torch.equal(merged.delta(), adapter.delta())
    torch.testing.assert_close(merged.delta(), adapter.delta(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "basis"), CASES)
def test_folded_merge_is_the_float64_sum(method, basis):
    shape = (24, 64)
    adapters = [trained(method, basis, shape, slot=slot) for slot in range(6)]
    concepts = [(as_concept(f"concept-{slot}", [adapter]), 0.5 + 0.1 * slot) for slot, adapter in enumerate(adapters)]
    change = merge(concepts).layers["unet.24x64"]
    weight = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    exact = weight.double()[0]
    for adapter, (_, strength) in zip(adapters, concepts, strict=True):
        factors = adapter.factors()
        exact = exact + strength * factors.up.double() @ factors.down.double()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        target = exact - weight[0].double() + weight[0].to(dtype).double()
        folded = folded_weight(weight[0].to(dtype), change)
        floor = (target.to(dtype).double() - target).norm()
        assert (folded.double() - target).norm() <= 1.5 * floor


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("method", "basis"), CASES)
def test_merging_is_order_free(method, basis, algorithm):
    concepts = [
        (as_concept(f"concept-{slot}", [trained(method, basis, slot=slot)]), 0.3 * (slot + 1)) for slot in range(3)
    ]
    inputs = inputs_of([concept for concept, _ in concepts])
    first, *others = [
        merge(order, algorithm=algorithm, inputs=inputs).layers["unet.24x64"]
        for order in itertools.permutations(concepts)
    ]
    for other in others:
        assert torch.equal(other.up, first.up) and torch.equal(other.down, first.down)


AIMED = ("dual",)  # some of its directions are its tokens', whatever the slot
FROZEN = [
    name
    for name, method in METHODS.items()
    if method.owns_slot(AdapterConfig(method=name))
    and "down" in dict(build(name, "slot").named_buffers())
    and name not in AIMED
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", FROZEN)
def test_slots_do_not_interfere(method, shape):
    """``down_i down_jᵀ = 0`` for every pair of slots: one concept's change is silent on another's directions."""
    adapters = [trained(method, "slot", shape, slot=slot) for slot in range(16)]
    for a, b in itertools.combinations(adapters, 2):
        assert (a.down @ b.down.T).abs().max() < 1e-6
        assert overlap(a.down, b.down) < 1e-6
    own, other = adapters[0], adapters[1]
    silent = other.delta() @ own.down.T
    assert silent.norm() < 1e-6 * (own.delta() @ own.down.T).norm()


def test_plain_lora_does_interfere():
    """The law above can fail: trained down factors meet one another."""
    first, second = (trained("lora", "slot", slot=slot) for slot in (0, 1))
    assert overlap(first.down, second.down) > 0.05
