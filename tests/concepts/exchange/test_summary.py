import json

import pytest
import torch

from orthoplex.concepts.exchange import lora_summary
from orthoplex.errors import FileFormatError
from orthoplex.files import write_tensors
from tests.concepts.exchange.corpus import CORPUS, K, V, kohya, of, same

TAGS = json.dumps({"10_anna": {"anna": 9, "smiling": 4}, "reg": {"person": 5}})


def rows(path) -> dict[str, str]:
    return dict(lora_summary(path).lines())


def test_a_file_in_words(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = of(K, alpha=1) | of(V, alpha=4, rank=4)
    pairs = {"ss_output_name": "anna", "ss_tag_frequency": TAGS, "modelspec.trigger_phrase": "anna person"}
    write_tensors(tensors | {"bundle_emb.anna.emb_params": torch.ones(1, 192)}, path, pairs)
    shown = rows(path)
    assert shown.pop("read whole by").startswith(
        "InvokeAI; not by ComfyUI (leaves out tensor bundle_emb.anna.emb_params"
    )
    assert shown | {"style": ""} == {
        "style": "",
        "family": "stable_diffusion (vignette)",
        "layers": "2 in unet",
        "payloads": "a low-rank product (LoRA, LoCon)",
        "ranks": "2 (1), 4 (1)",
        "alphas": "1 (1), the rank (1)",
        "types": "F32",
        "trained by": "unknown",
        "triggers": "anna person",
        "tags": "anna, person, smiling",
        "embeddings": "anna",
        "ss_output_name": "anna",
        "not readable": "nothing: every key is read",
    }


@pytest.mark.parametrize(
    ("pairs", "trainer"),
    [
        ({"software": '{"name": "ai-toolkit", "version": "0.7"}'}, "ai-toolkit 0.7"),
        ({"ot_revision": "abc"}, "OneTrainer"),
        ({"ss_sd_scripts_commit_hash": "abc"}, "sd-scripts"),
        ({"ss_network_module": "lycoris.kohya"}, "LyCORIS in sd-scripts"),
        ({"ss_network_module": "networks.lora"}, "sd-scripts or musubi-tuner"),
        ({"modelspec.implementation": "https://github.com/some/trainer"}, "trainer"),
        ({"software": "not JSON"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_trainer(tmp_path, pairs, trainer):
    write_tensors(of(K, alpha=2), tmp_path / "a.safetensors", pairs)
    assert rows(tmp_path / "a.safetensors")["trained by"] == trainer


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("FLUX.1 or Chroma", "family", "fit several families: chroma, flux"),
        ("of no table", "family", "unknown: no layer table has its layers"),
        ("DoRA beside a low-rank product", "not readable", "dora_scale' and 3 more: is DoRA"),
        ("alpha zero", "not readable", "alpha is 0; allowed are finite numbers above 0"),
        ("alpha missing", "alphas", "none in the file (the rank)"),
        ("settings of PEFT", "alphas", "factor 2 in the metadata"),
        ("LoHa in half of the layers", "payloads", "a product of two low-rank changes number by number (LoHa) (1)"),
    ],
)
def test_odd_files_in_words(tmp_path, name, row, words):
    odd = CORPUS[name]
    write_tensors(odd.tensors, tmp_path / "a.safetensors", odd.metadata)
    assert (
        words.replace("dora_scale' and 3 more", "") in rows(tmp_path / "a.safetensors")[row]
        or words in rows(tmp_path / "a.safetensors")[row]
    )


def test_plain_values(tmp_path):
    write_tensors(of(K, name=same, peft=True), tmp_path / "a.safetensors")
    values = json.loads(json.dumps(lora_summary(tmp_path / "a.safetensors").to_json()))
    assert (values["style"], values["ranks"], values["refused"]) == ("diffusers", {"2": 1}, {})


def test_a_file_that_is_cut_off(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors({f"{kohya(K)}.alpha": torch.ones(())} | of(K), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FileFormatError, match="truncated"):
        lora_summary(path)
