"""Convolutions, norms and biases take changes as linear layers do, in a model and in files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept
from orthoplex.errors import BaseModelError
from orthoplex.merging import ALGORITHMS, merge
from orthoplex.models import Base, check_layers, hash_cache, load_base
from orthoplex.models.base_files import BaseFiles
from orthoplex.models.weights import matrix_shape
from tests.models.test_base_files import assert_same_folder
from tests.models.test_folding import same_bits, snapshot
from tests.pico import make_concept

CONVOLUTION = "unet.down_blocks.0.resnets.0.conv1"
NORM = "unet.mid_block.attentions.0.norm"
BIAS = "unet.conv_in.bias"
TEXT = "text_encoder.text_model.encoder.layers.0.layer_norm1"
PARAMETERS = {CONVOLUTION: (16, 144), NORM: (32, 1), BIAS: (16, 1), TEXT: (24, 1)}


def wide(base: Base, name: str = "anna", *, seed: int = 0, others: tuple[str, ...] = tuple(PARAMETERS)) -> Concept:
    """A concept that changes linear layers and other parameters."""
    concept, generator = make_concept(base, name, seed=seed), torch.Generator().manual_seed(seed)
    for layer in others:
        rows, columns = PARAMETERS[layer]
        rank = min(2, columns)
        change = LowRank(
            torch.randn(rows, rank, generator=generator) / 10, torch.randn(rank, columns, generator=generator)
        )
        concept.layers[layer] = change
    return concept


@pytest.mark.parametrize(("shape", "matrix"), [((8, 4, 3, 3), (8, 36)), ((5,), (5, 1)), ((2, 3), (2, 3))])
def test_every_parameter_is_a_matrix(shape, matrix):
    assert matrix_shape(shape) == matrix


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_change_is_added_and_taken_out_bit_for_bit(pico, last):
    (pico.family.channels_last if last else pico.family.channels_first)()
    before, concept = snapshot(pico), wide(pico)
    state = {name.removeprefix("unet."): change for name, change in concept.layers.items() if name.startswith("unet.")}
    with pico.folded(merge([(concept, 0.5)])):
        unet = pico.pipeline.unet.state_dict()
        for name, change in state.items():
            key = name if name.endswith(".bias") else f"{name}.weight"
            expected = before[f"unet.{key}"] + 0.5 * change.delta().view(unet[key].shape)
            torch.testing.assert_close(unet[key], expected, rtol=1e-5, atol=1e-6)
        assert pico.pipeline.unet.down_blocks[0].resnets[0].conv1.weight.is_contiguous() is not last
    assert same_bits(snapshot(pico), before)
    assert pico.pipeline.unet.down_blocks[0].resnets[0].conv1.weight.is_contiguous() is not last
    pico.family.channels_first()


def test_a_layout_that_changes_meanwhile_is_kept(pico):
    pico.family.channels_first()
    before, weight = snapshot(pico), pico.pipeline.unet.down_blocks[0].resnets[0].conv1.weight
    with pico.folded(wide(pico)):
        pico.family.channels_last()
    assert not weight.is_contiguous() and same_bits(snapshot(pico), before)
    pico.family.channels_first()


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if not ALGORITHMS[name].needs_inputs])
def test_every_algorithm_merges_them(pico, algorithm):
    before = snapshot(pico)
    merged = merge([(wide(pico), 1.0), (wide(pico, "rex", seed=1), 0.7)], algorithm=algorithm)
    with pico.folded(merged):
        assert not torch.equal(pico.pipeline.unet.conv_in.bias, before["unet.conv_in.bias"])
    assert same_bits(snapshot(pico), before)


def test_strengths_are_set_for_them(pico):
    before = pico.pipeline.unet.conv_in.bias.clone()
    concept = wide(pico)
    with pico.fold(concept) as undo:
        undo.strengths["anna"] = 2.0
        expected = before + 2 * concept.layers[BIAS].delta().view(-1)
        torch.testing.assert_close(pico.pipeline.unet.conv_in.bias, expected)
        undo.strengths["anna"] = 0.0
        assert torch.equal(pico.pipeline.unet.conv_in.bias, before)


def test_names_of_text_encoders_may_lack_their_inner_model(pico):
    concept = wide(pico, others=(TEXT,))
    short = {layer.replace("text_model.", ""): change for layer, change in concept.layers.items()}
    with pico.folded(concept):
        full = snapshot(pico)
    with pico.folded(replace(concept, layers=short)):
        assert same_bits(snapshot(pico), full)


def test_files_and_model_give_the_same_folder(pico_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(hash_cache, "_RACE_NS", 0)
    ours = load_base(pico_folder).save(tmp_path / "ours")
    base, files = load_base(ours), BaseFiles.of(ours)
    merged = merge([(wide(base), 0.5)])
    assert files is not None and files.takes(merged)
    files.write(merged, tmp_path / "files")
    with base.folded(merged):
        base.save(tmp_path / "model")
    assert_same_folder(tmp_path / "files", tmp_path / "model")
    table = "text_encoder.text_model.embeddings.position_embedding"
    change = LowRank(torch.ones(32, 1), torch.ones(1, 24))
    assert not files.takes(replace(merged, layers={table: change}))  # as in a model


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (CONVOLUTION, (16, 16), r"the change has shape \(16, 16\), the base's weight has \(16, 16, 3, 3\)"),
        (BIAS, (8, 1), r"the change has shape \(8, 1\), the base's bias has \(16,\)"),
        ("unet.nowhere.bias", (8, 1), "is not in the base, which has"),
        (f"{CONVOLUTION}.weight", (16, 144), "is not in the base, which has"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.bias",
            (32, 1),
            r"is not in the base: '\S*to_k' has no bias",
        ),
        (
            "text_encoder.text_model.embeddings.token_embedding",
            (4, 24),
            "it is a .*Embedding; allowed are linear layers, convolutions and norms",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(pico, layer, shape, message):
    before, concept = snapshot(pico), make_concept(pico)
    change = LowRank(torch.ones(shape[0], 1), torch.ones(1, shape[1]))
    with pytest.raises(BaseModelError, match=f"^layer '{layer}'.*{message}"):
        pico.fold(replace(concept, layers={**concept.layers, layer: change}))
    assert same_bits(snapshot(pico), before) and pico.recipe is None


class Rounding(nn.Conv2d):
    """A stand-in for the convolutions of quantising libraries."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight.round(decimals=1), self.bias)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (Rounding(16, 16, 3), "which computes unlike a convolution; load the model without quantisation"),
        (nn.ConvTranspose2d(16, 16, 3), "allowed are linear layers, convolutions and norms"),
    ],
)
def test_modules_that_compute_otherwise_are_refused(pico_folder, replaced, message):
    base = load_base(pico_folder)
    concept = wide(base, others=(CONVOLUTION,))
    base.pipeline.unet.down_blocks[0].resnets[0].conv1 = replaced
    with pytest.raises(BaseModelError, match=message):
        base.fold(replace(concept, layers={CONVOLUTION: concept.layers[CONVOLUTION]}))


def test_shared_biases_are_refused(pico_folder):
    base = load_base(pico_folder)
    concept, unet = wide(base, others=(BIAS,)), base.pipeline.unet
    unet.down_blocks[0].resnets[0].conv1.bias = unet.conv_in.bias
    with pytest.raises(BaseModelError, match="shares its weight with 'unet.down_blocks.0.resnets.0.conv1'"):
        base.fold(concept)


def test_a_concept_for_other_layers_is_refused_with_their_number(pico):
    concept = wide(pico)
    check_layers(concept, pico)
    strange = {"unet.nowhere": LowRank(torch.ones(2, 1), torch.ones(1, 2)), "unet.conv_in": concept.layers[BIAS]}
    with pytest.raises(BaseModelError) as error:
        check_layers(replace(concept, layers={**concept.layers, **strange}), pico)
    assert str(error.value) == (
        f"concept anna does not fit base {pico.identity}: it changes layer unet.nowhere of (2, 2), here there is none "
        f"(and 1 more of {len(concept.layers) + 2}); allowed are files for this family"
    )
