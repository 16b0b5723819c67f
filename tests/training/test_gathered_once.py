"""A training gathers the Gram matrix of a layer once for the same prompts and the same state of the base."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from orthoplex.activations.grams import MeanGram
from orthoplex.training import train

CLOSED = {"erasure_form": "closed-form", "layers": "cross-attention-kv", "batch_size": 8}
FORMS = {
    "last steps": (CLOSED, 2),
    "at the end": ({**CLOSED, "erasure_steps": 0}, 2),
    "layer-wise": ({**CLOSED, "token_vectors": "layer-wise"}, 2),
    "text encoder": ({**CLOSED, "text_encoder": True, "method": "lora"}, 2),
    "all attention layers": ({**CLOSED, "layers": "attention"}, 2),
    "activation": ({**CLOSED, "erasure_form": "activation"}, 1),
    "none": ({**CLOSED, "erasure": 0.0}, 1),
}


@pytest.mark.parametrize(("changes", "most"), FORMS.values(), ids=FORMS)
def test_no_matrix_is_gathered_twice(base, dataset, config, tmp_path, monkeypatch, changes, most):
    """Own prompts and foreign ones are ``most`` matrices a layer, and no two of a layer are alike."""
    gathered, value = [], MeanGram.value

    def recording(gram, layer):
        gathered.append((layer, value(gram, layer)))
        return gathered[-1][1]

    monkeypatch.setattr(MeanGram, "value", recording)
    for _ in train(base, dataset, replace(config, **changes), output=tmp_path / "anna.safetensors"):
        pass
    assert max(Counter(layer for layer, _ in gathered).values()) == most
    for number, (layer, gram) in enumerate(gathered):
        others = [other for name, other in gathered[:number] if name == layer]
        assert not any(torch.allclose(gram, other, rtol=1e-4) for other in others)
