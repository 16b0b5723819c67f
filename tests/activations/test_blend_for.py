"""Live sets with algorithms that need Gram matrices: those of a fresh merge, whatever is stored."""

from __future__ import annotations

import pytest
import torch

from orthoplex.activations import blend_for, merge_for, with_inputs
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base
from tests.pico import make_concept


def weights(base: Base) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach().clone() for name, layer in base.family.every_layer().items()}


def concepts(base: Base, *, stored: bool, text_encoder: bool = False):
    members = [
        make_concept(base, name, selection="cross-attention-kv", text_encoder=text_encoder, seed=seed)
        for seed, name in enumerate(("anna", "rex", "tom"))
    ]
    return [with_inputs(base, member) for member in members] if stored else members


@pytest.mark.parametrize(("stored", "text_encoder"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("algorithm", ["least-squares", "auto"])
def test_every_set_is_that_of_a_fresh_merge_bit_for_bit(pico, algorithm, stored, text_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("orthoplex.merging.foreign_store.cache_folder", lambda: tmp_path)
    members, before = concepts(pico, stored=stored, text_encoder=text_encoder), weights(pico)
    by_name = {member.name: member for member in members}
    seen = []
    with blend_for(pico, members, algorithm=algorithm) as blend:
        for names in (("anna", "rex"), ("tom",), ("anna", "rex", "tom"), ()):
            blend.only(*names)
            seen.append((dict(blend), weights(pico)))
    assert all(torch.equal(before[name], value) for name, value in weights(pico).items())
    for strengths, values in seen:
        if not strengths:
            assert all(torch.equal(before[name], value) for name, value in values.items())
            continue
        pairs = [(by_name[name], strength) for name, strength in strengths.items()]
        with pico.folded(merge_for(pico, pairs, algorithm=algorithm)):
            assert all(torch.equal(values[name], value) for name, value in weights(pico).items())


def test_an_error_of_the_merge_leaves_what_was_in(pico, tmp_path, monkeypatch):
    monkeypatch.setattr("orthoplex.merging.foreign_store.cache_folder", lambda: tmp_path)
    members = concepts(pico, stored=False)
    with blend_for(pico, members[:2], algorithm="least-squares") as blend:
        before, tokens = weights(pico), pico.tokens

        def failing(pairs):
            raise MemoryError

        monkeypatch.setattr(blend, "_merger", failing)
        with pytest.raises(MemoryError):
            blend.only("anna")
        assert all(torch.equal(before[name], value) for name, value in weights(pico).items())
        assert pico.tokens == tokens and list(blend) == ["anna", "rex"] and pico.recipe == blend.recipe


def test_unknown_algorithms_are_refused_before_anything_is_read(pico):
    with pytest.raises(ConfigurationError, match="merging algorithm"):
        blend_for(pico, algorithm="least-square")
    with pytest.raises(ConfigurationError, match="merging algorithm"):
        pico.blend(algorithm="least-square")
