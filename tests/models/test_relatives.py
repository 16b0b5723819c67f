"""Concepts on relatives of their base, and how far two bases are apart."""

import copy
from dataclasses import replace

import pytest
import torch

from orthoplex import vignette
from orthoplex.activations import merge_for, merge_to_folder, with_inputs
from orthoplex.concepts import load_concept, save_concept
from orthoplex.errors import BaseModelError
from orthoplex.models import WeightSample, load_base, on_base
from orthoplex.models.identity import weights_hash
from tests.pico import make_concept


def moved(base, noise, *, seed=1):
    """A copy whose every weight is moved by noise of a share of its tensor's spread."""
    other, generator = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in other.family.components().values():
            for values in module.parameters():
                if values.ndim > 1:
                    values += noise * values.std() * torch.randn(values.shape, generator=generator)
    other.identity = replace(other.identity, hash=weights_hash(other.family.components()), name="relative")
    return other


def sampled(base):
    """A concept whose file would hold a sample of its base."""
    concept, sample = make_concept(base), WeightSample.of(base.family.components()).encode()
    return replace(concept, manifest=replace(concept.manifest, base_sample=sample))


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 1e-1])
def test_the_distance_is_the_noise_in_units_of_the_spread(pico, noise):
    sample = WeightSample.decode(WeightSample.of(pico.family.components()).encode())
    assert sample.compare(moved(pico, noise).family.components()).distance == pytest.approx(noise, rel=0.1)
    same = sample.compare(pico.family.components())
    assert same.distance < 3e-4 and same.cosine == pytest.approx(1)  # the file's float16


def test_other_shapes_are_not_compared(pico):
    assert WeightSample.of(pico.family.components()).compare({"unet": pico.pipeline.unet}) is None


def test_one_scaled_tensor_does_not_decide(pico):
    """A fine-tune may shrink a tensor, as zeroed layers do; the rest is what it was."""
    sample, other = WeightSample.of(pico.family.components()), copy.deepcopy(pico)
    with torch.no_grad():
        other.pipeline.unet.conv_in.weight.mul_(0.01)
    compared = sample.compare(other.family.components())
    assert compared.cosine > 0.8 and compared.distance < 1


def test_it_samples_what_its_formula_says():
    linear, conv = torch.nn.Linear(3, 2), torch.nn.Conv2d(1, 2, 2)
    sample = WeightSample.of({"b": linear, "a": conv.to(memory_format=torch.channels_last)})
    torch.testing.assert_close(sample.values, torch.cat([conv.weight.flatten(), linear.weight.flatten()]).detach())


def test_a_concept_works_on_a_relative_and_the_distance_is_logged(pico, caplog):
    concept = sampled(pico)
    relative = moved(pico, 0.01)
    adopted = on_base(concept, relative)
    assert "concept anna was trained on base 'pipeline'" in caplog.text and "is used on 'relative'" in caplog.text
    assert "weights differ by 0.01 of their spread" in caplog.text
    assert adopted.manifest.base == relative.identity
    assert adopted.manifest.trained_on == pico.identity
    assert adopted.content_hash == concept.content_hash
    before = {name: layer.linear.weight.clone() for name, layer in relative.family.layers("attention").items()}
    with relative.folded(merge_for(relative, [(adopted, 1.0)])):
        for name, change in concept.layers.items():
            weight = relative.family.layers("attention")[name].linear.weight
            torch.testing.assert_close(weight - before[name], change.delta())
    assert on_base(concept, pico) is concept


@pytest.mark.parametrize(
    "sample",
    ["", "?", f"{'0' * 16}:AAA", f"{'0' * 16}:AH4AfgB+AH4="],
)
def test_an_unknown_distance_is_said(pico, caplog, sample):
    concept = make_concept(pico)
    concept = replace(concept, manifest=replace(concept.manifest, base_sample=sample))
    on_base(concept, moved(pico, 0.01))
    assert "its file does not tell how far the two are: compare pictures" in caplog.text


def test_a_base_of_other_layers_is_refused(pico):
    anna = load_concept(vignette.concept_file("anna", method="orthogonal"))
    with pytest.raises(BaseModelError, match=r"anna .* was trained on base 'vignette' .* and does not fit base .* it "):
        on_base(anna, pico)


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_an_unrelated_base_is_refused(pico, scale):
    unrelated, generator = copy.deepcopy(pico), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in unrelated.family.components().values():
            for values in module.parameters():
                if values.ndim > 1:
                    values.copy_(scale * values.std() * torch.randn(values.shape, generator=generator))
    unrelated.identity = replace(pico.identity, hash="1" * 64)
    with pytest.raises(
        BaseModelError, match=r"are unrelated to its weights \(cosine -?0.\d\d\); allowed are fine-tunes"
    ):
        on_base(sampled(pico), unrelated)


def test_inputs_of_another_text_encoder_are_gathered_anew(pico):
    concept = with_inputs(
        pico, replace(sampled(pico), layers=make_concept(pico, selection="cross-attention-kv").layers)
    )
    assert concept.inputs is not None
    denoiser = copy.deepcopy(pico)
    with torch.no_grad():
        for values in denoiser.pipeline.unet.parameters():
            values.mul_(1.01)
    denoiser.identity = replace(pico.identity, hash="1" * 64)
    assert on_base(concept, denoiser).content_hash == concept.content_hash
    both = moved(pico, 0.3)
    adopted = on_base(concept, both)
    assert adopted.inputs is None and not adopted.manifest.has_inputs
    ours = merge_for(both, [(adopted, 1.0)], algorithm="least-squares")
    theirs = merge_for(both, [(with_inputs(both, adopted), 1.0)], algorithm="least-squares")
    for layer, stack in ours.layers.items():
        torch.testing.assert_close(stack.delta(), theirs.layers[layer].delta(), rtol=1e-2, atol=1e-3)


def test_back_on_its_own_base_a_concept_is_as_it_was(pico, caplog):
    concept = sampled(pico)
    further = on_base(on_base(concept, moved(pico, 0.01)), moved(pico, 0.1, seed=2))
    assert "trained on base 'pipeline'" in caplog.messages[1] and "differ by 0.09" in caplog.messages[1]
    assert further.manifest.trained_on == pico.identity
    assert on_base(further, pico).manifest == concept.manifest and len(caplog.messages) == 2


def test_shipped_concepts_know_the_embedded_base(caplog):
    base = load_base("vignette")
    far = moved(base, 1.0)
    on_base(load_concept(vignette.concept_file("anna", method="orthogonal")), far)
    assert "weights differ by 0.7" in caplog.text


def test_a_merge_into_files_takes_relatives_too(pico, pico_folder, tmp_path, caplog):
    concept, folder = make_concept(pico, selection="cross-attention-kv"), tmp_path / "relative"
    save_concept(concept, tmp_path / "anna.safetensors")
    moved(pico, 0.01).save(folder)
    merged = merge_to_folder(folder, [(tmp_path / "anna.safetensors", 1.0)], tmp_path / "merged")
    assert merged.recipe.base.name == "relative" and "was trained on base" in caplog.text
    layer = next(iter(concept.layers))
    weights = [load_base(path).family.every_layer()[layer].weight for path in (folder, tmp_path / "merged")]
    torch.testing.assert_close(weights[1] - weights[0], concept.layers[layer].delta())
