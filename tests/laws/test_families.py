"""What every family can do, on a pico pipeline of its exact classes; the table of docs/bases.md names these tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthoplex.activations import merge_for
from orthoplex.activations.concept_erasure import erased_layers
from orthoplex.activations.erasure_options import ErasureOptions
from orthoplex.adapters import LowRank
from orthoplex.concepts import Concept, flat_names, load_concept, save_concept
from orthoplex.concepts.any_file import read_concept
from orthoplex.concepts.exchange import names, read_lora, write_lora
from orthoplex.errors import BaseModelError
from orthoplex.generation import generate
from orthoplex.merging import merge
from orthoplex.models import Base, load_base
from orthoplex.models.families import FAMILIES
from orthoplex.models.weights import named_modules
from orthoplex.training import ConceptDataset, TrainingConfig, checkpoint_path, train
from orthoplex.training.run import starting_tokens
from tests.checkpoints import checkpoint_of
from tests.families import BUILDERS
from tests.training.conftest import write_pictures

PUBLISHED_WIDTH_ALONE = ("FluxPipeline", "ChromaPipeline")
"""diffusers converts their files for transformers of width 3072 alone; slow tests do so."""
PROMPTS = ("a photo of a cat", "a drawing of a dog in a forest", "a red car at night", "a beach by day")


@dataclass(frozen=True)
class Trained:
    """A pico base of a family, and two concepts that were trained on it for five steps."""

    folder: Path
    base: Base
    files: tuple[Path, Path]

    @property
    def concepts(self) -> list[Concept]:
        return [load_concept(file) for file in self.files]


def weights(base: Base) -> dict[str, Tensor]:
    return {
        f"{component} {name}": values.clone()
        for component, network in base.family.components().items()
        for name, values in network.state_dict().items()
    }


def options(base: Base) -> TrainingConfig:
    few = {"steps": 5, "batch_size": 2, "slots": 4, "erasure_prompts": 8, "prior_pictures": 2, "warmup": 1}
    quick = {"prior_inference_steps": 1, "mixed_precision": "no", "thumbnail": "none", "schedule": "constant"}
    return TrainingConfig.from_mapping({**few, **quick}, defaults=base.training_defaults)


def concept_of(base: Base, folder: Path, token: str) -> Path:
    output = folder / f"{token.strip('<>')}.safetensors"
    for _ in train(base, dataset(folder, base, token), options(base), output=output, foreign_prompts=PROMPTS):
        pass
    return output


def dataset(folder: Path, base: Base, token: str) -> ConceptDataset:
    pictures = write_pictures(folder / "pictures", 2)
    side = base.family.resolution
    return ConceptDataset.from_folder(pictures, resolution=side, token=token, class_word="person", kind="person")


def random_changes(base: Base, selection: str) -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: LowRank(
            up=torch.randn(layer.linear.out_features, 2, generator=generator) / 8,
            down=torch.randn(2, layer.linear.in_features, generator=generator) / 8,
        )
        for name, layer in base.family.layers(selection).items()
    }


def sizes_of(base: Base) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(module.weight.shape)
        for name, module in named_modules(base.family.components()).items()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


@pytest.fixture(scope="module", params=BUILDERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp(request.param)
    base = load_base(BUILDERS[request.param](folder / "pipeline"))
    before = weights(base)
    yield Trained(folder / "pipeline", base, (concept_of(base, folder, "<anna>"), concept_of(base, folder, "<rex>")))
    after = weights(base)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert base.tokens == () and base.recipe is None


@pytest.fixture
def published(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the pico base were the published one: its sizes stand in the layer table."""
    table, version = trained.base.family.table, trained.base.identity.family
    for sizes in (table.versions, table.weights):
        monkeypatch.setitem(sizes._expanded, version, sizes_of(trained.base))
    caches = (names.read_names, names._flat_paths, flat_names._known_names)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def drawn(base: Base, change: object = None, prompt: str = "a photo of a cat") -> np.ndarray:
    (picture,) = generate(base, prompt, merge=change, num_inference_steps=2, guidance_scale=3.0, expect_names=False)
    return np.asarray(picture, dtype=np.int16)


def test_every_family_is_here():
    assert set(BUILDERS) == {row.module for row in FAMILIES.values()}


def test_folder(trained):
    """The same base from its own folder, in another type, and written anew."""
    narrow = load_base(trained.folder, dtype=torch.bfloat16)
    assert narrow.identity == trained.base.identity and narrow.dtype == torch.bfloat16
    trained.base.save(trained.folder.with_name("written"), overwrite=True)
    written = load_base(trained.base.save(trained.folder.with_name("written"), overwrite=True))
    assert written.identity.hash == trained.base.identity.hash
    assert np.array_equal(drawn(written), drawn(trained.base))
    index = json.loads((trained.folder.with_name("written") / "model_index.json").read_text())
    assert index["_class_name"] in FAMILIES


def test_single_file(trained, tmp_path):
    """The same base from one file, whose other parts and settings are the folder's; some widths diffusers refuses."""
    base = trained.base
    file = checkpoint_of(base.pipeline, base.identity.family, tmp_path / "base.safetensors")
    if type(base.pipeline).__name__ in PUBLISHED_WIDTH_ALONE:
        with pytest.raises(BaseModelError, match="transformer"):
            load_base(file, config=trained.folder)
        return
    again = load_base(file, config=trained.folder)
    assert again.identity.hash == base.identity.hash
    apart = np.abs(drawn(again) - drawn(base)).max()
    assert apart <= 1  # of 255: some processors add in another order where weights lie elsewhere in memory


def test_generate(trained):
    """Pictures follow prompts and seeds, and nothing else."""
    base = trained.base
    first = drawn(base)
    assert np.array_equal(first, drawn(base))
    assert not np.array_equal(first, drawn(base, prompt="a red beach"))
    assert first.shape == (base.family.resolution, base.family.resolution, 3)


def test_fold(trained):
    """The changes of a concept's layers change pictures, beside what its tokens do."""
    base, (anna, _) = trained.base, trained.concepts
    loud, tokens_alone = merge([(anna, 40.0)]), replace(anna, layers={}, inputs=None)
    prompt = "a photo of <anna> person"
    assert not np.array_equal(drawn(base, loud, prompt), drawn(base, tokens_alone, prompt))
    assert not np.array_equal(drawn(base, tokens_alone, prompt), drawn(base, prompt="a photo of person"))


def test_unfold(trained):
    """Every bit is as it was, of weights, embeddings and pictures."""
    base, (anna, _) = trained.base, trained.concepts
    before, plain = weights(base), drawn(base)
    base.fold(merge([(anna, 40.0)])).restore()
    after = weights(base)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert np.array_equal(drawn(base), plain)


def test_train(trained):
    """Five steps change every layer that was chosen, and the tokens."""
    base, (anna, _) = trained.base, trained.concepts
    assert anna.manifest.base == base.identity and anna.manifest.training["steps"] == 5
    assert anna.layers.keys() == base.family.layers(anna.manifest.training["layers"]).keys()
    assert all(change.up.any() for change in anna.layers.values())
    starts = starting_tokens(base, anna)
    for token, item in anna.tokens.items():
        for encoder, vector in item.placement.vectors.items():
            assert not torch.equal(vector, starts[token].placement.vectors[encoder]), (token, encoder)


def test_resume(trained, tmp_path):
    """A training that is stopped and resumed writes the same numbers as one that is not."""
    base = trained.base
    output = tmp_path / "anna.safetensors"
    data = dataset(trained.folder.parent, base, "<anna>")
    steps = train(base, data, options(base), output=output, foreign_prompts=PROMPTS)
    for record in steps:
        if record.step == 3:
            steps.close()
    assert checkpoint_path(output).is_file() and not output.exists()
    for _ in train(base, data, options(base), output=output, foreign_prompts=PROMPTS, resume=True):
        pass
    whole, resumed = load_concept(trained.files[0]), load_concept(output)
    assert whole.content_hash == resumed.content_hash


def test_erase(trained):
    """Erasure in closed form leaves more of what a change adds where it is named than elsewhere."""
    base, (anna, _) = trained.base, trained.concepts
    manifest = replace(anna.manifest, training={**anna.manifest.training, "erasure": 0.0, "erasure_form": "activation"})
    concept = replace(anna, manifest=manifest, layers=random_changes(base, "attention"), inputs=None)
    few = ErasureOptions(num_prompts=8, batch_size=4, prior_pictures=2, prior_inference_steps=1)
    erased = erased_layers(base, concept, few, foreign_prompts=PROMPTS)
    left = {
        place: sum(float(erased.layers[layer].energy(grams[layer])) for layer in grams)
        / sum(float(concept.layers[layer].energy(grams[layer])) for layer in grams)
        for place, grams in {"own": erased.own, "foreign": erased.foreign}.items()
    }
    assert left["foreign"] < left["own"] < 1.0 and left["foreign"] < 0.5, left


@pytest.mark.parametrize("algorithm", ["sum", "least-squares", "ssr"])
def test_merge(trained, algorithm):
    """Two concepts in one merge, by the sum and from the inputs of their layers."""
    merged = merge_for(trained.base, [(concept, 1.0) for concept in trained.concepts], algorithm=algorithm)
    assert set(merged.tokens) == {"<anna>", "<anna>_1", "<rex>", "<rex>_1"}
    picture = drawn(trained.base, merged, "a photo of <anna> person and <rex> person")
    assert np.isfinite(picture).all()


@pytest.mark.parametrize("style", ["kohya", "comfy", "diffusers"])
def test_convert(trained, published, style, tmp_path):
    """In other programs' names the changes are the same numbers, and come back."""
    base = trained.base
    own = replace(trained.concepts[0], layers=random_changes(base, "linear"), inputs=None)
    save_concept(own, tmp_path / "anna.safetensors")
    source, target = read_lora(tmp_path / "anna.safetensors"), tmp_path / "lora.safetensors"
    write_lora(source, target, style=style, dtype=torch.float32, embeddings="none")
    foreign = read_concept(target, base.identity)
    assert foreign.layers.keys() == own.layers.keys()
    for layer, change in own.layers.items():
        torch.testing.assert_close(foreign.layers[layer].delta(), change.delta(), rtol=1e-3, atol=1e-4)
    assert not np.array_equal(drawn(base, foreign), drawn(base))


@pytest.mark.parametrize("kind", ["torchao-int8", pytest.param("bnb-4bit", marks=pytest.mark.slow)])
def test_quantise(trained, kind):
    """Concepts of the plain base change pictures of the quantised one, beside its layers, and leave without a trace."""
    base = load_base(trained.folder, quantise=kind)
    assert base.identity == trained.base.identity and base.dtype == trained.base.dtype
    plain, loud = drawn(base), merge([(concept, 40.0) for concept in trained.concepts], algorithm="sum")
    with base.folded(loud):
        assert not np.array_equal(drawn(base), plain)  # of a prompt that names no concept
        assert base._undo is not None and base._undo.unmerged_layers
    assert np.array_equal(drawn(base), plain)
    assert not any(module._forward_hooks for module in base.family.denoiser.modules())
