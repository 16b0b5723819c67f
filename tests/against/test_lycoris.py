"""Changes that LyCORIS writes are read as LyCORIS applies them while it trains.

Two kinds of its files do not say how they were trained, to LyCORIS neither: LoKr of two whole sides with rs_lora (it
reads it back with a factor of 1), and DyLoRA (its factor follows the rank that is drawn; it writes a LoRA).

LyCORIS is not installed here: ``pip install --no-deps lycoris-lora==4.1.3 einops toml`` beside the package, then
``pytest -m slow tests/against/test_lycoris.py``.
"""

import pytest
import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts.exchange.payloads import PAYLOADS, load_payload, payloads_of, split_key

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LAYERS = {
    "linear": lambda: nn.Linear(48, 64),
    "point": lambda: nn.Conv2d(48, 64, 1),
    "conv": lambda: nn.Conv2d(48, 64, 3, padding=1),
    "conv1d": lambda: nn.Conv1d(48, 64, 3, padding=1),
    "grouped": lambda: nn.Conv2d(96, 64, 3, padding=1, groups=2),
}
SETTINGS = {
    "LoConModule": [{}, {"use_tucker": True}, {"rs_lora": True}, {"use_scalar": True}],
    "LohaModule": [{}, {"use_tucker": True}, {"rs_lora": True}, {"use_scalar": True}],
    "LokrModule": [
        {},
        {"factor": 4},
        {"decompose_both": True, "lora_dim": 2},
        {"full_matrix": True},
        {"use_tucker": True},
        {"lora_dim": 100},
        {"unbalanced_factorization": True, "factor": 8},
        {"rs_lora": True, "factor": 4},
        {"use_scalar": True},
    ],
    "FullModule": [{}],
}


def trained(algorithm: str, layer: nn.Module, settings: dict) -> nn.Module:
    """Return a module of LyCORIS around a layer, with random values."""
    modules = pytest.importorskip("lycoris.modules")
    adapter = getattr(modules, algorithm)("module", layer, 1.0, **{"lora_dim": 4, "alpha": 3, **settings})
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter.eval()


def applied(adapter: nn.Module, layer: nn.Module) -> torch.Tensor:
    """Return the change of the layer's weight that the adapter's forward makes, from its answers to unit inputs."""
    window = layer.weight.shape[2:]
    inputs = torch.eye(layer.in_channels if window else layer.in_features)
    if not window:
        return (adapter(inputs) - layer(inputs)).T
    kernel = [*window]
    pictures = torch.zeros(len(inputs), len(inputs), *kernel)
    pictures[:, :, *[size // 2 for size in kernel]] = inputs
    answers = adapter(pictures) - layer(pictures)  # (in, out, height, width): the window, mirrored
    change = answers.transpose(0, 1).flip(*range(2, answers.ndim))
    if layer.groups > 1:
        halves = [part.chunk(layer.groups, 1)[i] for i, part in enumerate(change.chunk(layer.groups, 0))]
        return torch.cat(halves)
    return change


CASES = [
    (algorithm, settings, layer)
    for algorithm, all_settings in SETTINGS.items()
    for settings in all_settings
    for layer in LAYERS
]


@torch.no_grad()
@pytest.mark.parametrize(("algorithm", "settings", "name"), CASES)
def test_changes_are_those_of_lycoris_forward(algorithm, settings, name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    adapter = trained(algorithm, layer, settings)
    if algorithm == "FullModule":
        nn.init.zeros_(adapter.bias)
    weight = layer.weight
    expected = applied(adapter, layer)
    if algorithm == "FullModule":
        adapter.apply_to()
    parts = {split_key(f"module.{key}").part: value.detach() for key, value in adapter.state_dict().items()}
    (kind, *rest) = payloads_of(parts)
    assert rest == (["bias difference"] if algorithm == "FullModule" else [])
    own = {part: value for part, value in parts.items() if part in PAYLOADS[kind].parts}
    change = load_payload(kind).change(own, shape=tuple(weight.shape))
    delta = change.delta() if isinstance(change, LowRank) else change.values
    error = (delta.reshape(weight.shape) - expected).norm() / expected.norm()
    assert error < 1e-5, float(error)


@torch.no_grad()
@pytest.mark.parametrize("algorithm", ["LohaModule", "LokrModule"])
def test_lycoris_merges_with_alpha_over_rank_twice(algorithm):
    """Why the reference above is the forward: the merge of LyCORIS is another change."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 64)
    adapter = trained(algorithm, layer, {"factor": 4})
    once, twice = applied(adapter, layer), adapter.get_merged_weight()[0] - layer.weight
    torch.testing.assert_close(twice, once * 3 / 4, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("DiagOFTModule", "oft"),
        ("ButterflyOFTModule", "oft"),
        ("GLoRAModule", "glora"),
        ("IA3Module", "ia3"),
        ("TLoraModule", "tlora"),
    ],
)
def test_kinds_that_no_sum_holds_are_refused(algorithm, kind):
    adapter = trained(algorithm, nn.Linear(48, 64), {})
    parts = [split_key(f"module.{key}") for key in adapter.state_dict()]
    assert payloads_of([part.part for part in parts]) == [kind]


@pytest.mark.parametrize("algorithm", ["LoConModule", "LohaModule", "LokrModule"])
def test_dora_is_refused(algorithm):
    adapter = trained(algorithm, nn.Linear(48, 64), {"weight_decompose": True})
    assert payloads_of([split_key(f"module.{key}").part for key in adapter.state_dict()]) == ["dora"]


def test_norms_are_differences():
    norms = pytest.importorskip("lycoris.modules")
    adapter = norms.NormModule("module", nn.LayerNorm(8), 1.0)
    parts = {split_key(f"module.{key}").part: value.detach() for key, value in adapter.state_dict().items()}
    assert payloads_of(parts) == ["norm difference", "bias difference"]
