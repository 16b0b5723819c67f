import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import orthoplex.vignette
from orthoplex.concepts import load_concept, read_manifest
from orthoplex.concepts.exchange import lora_of_concept, read_lora, write_lora
from orthoplex.concepts.exchange.adapter_settings import settings_of
from orthoplex.concepts.exchange.contents import lora_contents
from orthoplex.concepts.exchange.stored_changes import ModuleReader
from orthoplex.concepts.exchange.stored_numbers import read_numbers
from orthoplex.concepts.tokens.layer_vectors import LayerVectors
from orthoplex.errors import FileFormatError
from orthoplex.files import read_header, write_tensors
from tests.concepts.exchange.corpus import SIZES, K, V, kohya, of, same

ANNA = Path(orthoplex.vignette.__file__).parent / "concepts" / "lora" / "anna.safetensors"
DOWN, UP = f"{kohya(K)}.lora_down.weight", f"{kohya(K)}.lora_up.weight"


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1), (2, 1), (1, 0.5), (4, 2), (3, 1.5)])
def test_a_missing_alpha_is_the_rank(tmp_path, alpha, scale):
    tensors = of(K, alpha=alpha)
    write_tensors(tensors, tmp_path / "a.safetensors", {"ss_network_alpha": "1", "ss_network_dim": "2"})
    delta = read_lora(tmp_path / "a.safetensors").layers[K].delta()
    torch.testing.assert_close(delta, scale * tensors[UP] @ tensors[DOWN], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"lora_alpha": 4}, 2),
        ({"lora_alpha": 4, "use_rslora": True}, 4 / math.sqrt(2)),
        ({"lora_alpha": 4, "alpha_pattern": {"attn2.to_k": 1}}, 0.5),
        ({"lora_alpha": 4, "alpha_pattern": {"to_v": 1, r".*to_[qk]": 8}}, 4),
        ({"lora_alpha": 4, "alpha_pattern": {"ttn2.to_k": 1}}, 2),
        ({"r": 2}, 1),
    ],
)
@pytest.mark.parametrize("where", ["metadata", "folder"])
def test_settings_of_peft_scale(tmp_path, settings, scale, where):
    if where == "metadata":
        tensors = of(K, name=same, peft=True)
        pairs = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in settings.items()})}
        path = tmp_path / "a.safetensors"
        write_tensors(tensors, path, pairs)
    else:
        tensors = of(K, name=lambda layer: "base_model.model." + layer.partition(".")[2], peft=True)
        path = tmp_path / "adapter"
        write_tensors(tensors, path / "adapter_model.safetensors")
        (path / "adapter_config.json").write_text(json.dumps(settings))
        assert read_lora(path).name == "adapter"
    down, up = tensors.values()
    torch.testing.assert_close(read_lora(path).layers[K].delta(), scale * up @ down, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fan_in_fan_out": true}', "has fan_in_fan_out true"),
        ('{"init_lora_weights": "PiSSA_niter_4"}', "changes the base as well"),
        ('{"init_lora_weights": "lora_ga"}', "changes the base as well"),
        ('{"alpha_pattern": [1]}', "allowed are numbers"),
        ('{"lora_alpha": 0}', "has lora_alpha 0 and alpha_pattern {}, allowed are numbers above 0"),
        ('{"lora_alpha": 1' + "0" * 400 + "}", r"has lora_alpha 10+… and"),
        ('{"rank_pattern": {"a": "b"}}', "has r None and rank_pattern {'a': 'b'}, allowed are numbers above 0"),
        ('{"alpha_pattern": {"(.*)*x": 2}}', "allowed are names and patterns without repeated groups"),
        ('{"alpha_pattern": {".*.*.*.*x": 2}}', "allowed are names and patterns without repeated groups"),
        ("[]", "is a JSON list"),
        ("{", "adapter_config.json: cannot be read: Expecting property name"),
    ],
)
def test_settings_that_mean_another_change_are_refused(tmp_path, text, words):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(FileFormatError, match=words):
        settings_of(tmp_path / "adapter_model.safetensors", {})


def test_settings_of_no_component_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"has '\.lora_alpha', allowed are keys that begin with a component"):
        settings_of(tmp_path / "a.safetensors", {"lora_adapter_metadata": '{".lora_alpha": 8}'})


def test_a_folder_of_several_adapters_names_them(tmp_path):
    for name in ("second", "first"):
        write_tensors(of(K, name=same, peft=True), tmp_path / name / "adapter_model.safetensors")
        (tmp_path / name / "adapter_config.json").write_text("{}")
    words = f"holds the adapters first, second of PEFT; name one, as in {tmp_path / 'first'}"
    with pytest.raises(FileFormatError, match=words):
        read_lora(tmp_path)
    with pytest.raises(FileFormatError, match=f"; it {words}"):
        read_manifest(tmp_path)
    assert [*read_lora(tmp_path / "first").layers] == [K]


def test_layers_are_read_when_they_are_asked_for(tmp_path):
    """Nothing of a layer stays from the time when the file was opened."""
    path = tmp_path / "a.safetensors"
    tensors = of(K, V, alpha=2)
    write_tensors(tensors, path)
    lora = read_lora(path)
    for layer in (K, V, K):
        down, up = (tensors[f"{kohya(layer)}.lora_{part}.weight"] for part in ("down", "up"))
        assert torch.equal(lora.layers[layer].delta(), up @ down)
    assert [*lora.layers] == [K, V]
    path.unlink()
    with pytest.raises(FileFormatError, match="cannot be read"):
        _ = lora.layers[V]


@pytest.mark.parametrize("change", ["replaced", "shorter", "written anew"])
def test_a_file_that_is_replaced_while_it_is_read_is_named(tmp_path, change):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_tensors(of(K, V, alpha=2), path)
    write_tensors({key: tensor + 1 for key, tensor in of(K, V, alpha=2).items()}, other)
    os.utime(path, ns=(1, 1))
    lora = read_lora(path)
    if change == "replaced":
        os.utime(other, ns=(1, 1))
        other.replace(path)
    elif change == "shorter":
        os.truncate(path, path.stat().st_size - 4000)
    else:
        path.write_bytes(other.read_bytes())
    with pytest.raises(FileFormatError, match="a.safetensors: was replaced while it was read; read it once more"):
        [lora.layers[layer].delta() for layer in lora.layers]


def test_threads_read_their_own_layers(tmp_path):
    """Another thread reads another layer between any two lines of this one."""
    path = tmp_path / "a.safetensors"
    write_tensors(of(K, V, alpha=2), path)
    contents = lora_contents(path)
    first, second = (contents.layers[layer].module for layer in (K, V))
    reader = ModuleReader(contents)
    expected = ModuleReader(contents).change(first).delta()

    def other_thread(frame, event, arg):
        sys.settrace(None)
        reader.change(second)
        sys.settrace(tracer)
        return other_thread

    def tracer(frame, event, arg):
        return other_thread if frame.f_code is ModuleReader.change.__code__ else None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        changes = [reader.change(first) for _ in range(2)]
    finally:
        sys.settrace(before)
    assert all(torch.equal(change.delta(), expected) for change in changes)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    tensors = of(K, alpha=2)
    tensors[UP][3, 1] = math.nan
    write_tensors(tensors, tmp_path / "a.safetensors")
    lora = read_lora(tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError, match="lora_up.weight': up has 1 of 256 values that are not finite"):
        _ = lora.layers[K]


def test_fp8_is_read_exactly(tmp_path):
    tensors = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in of(K, alpha=2).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    delta = read_lora(tmp_path / "a.safetensors").layers[K].delta()
    assert torch.equal(delta, tensors[UP].float() @ tensors[DOWN].float())


def test_an_error_counts_keys_and_gives_each_reason_once(tmp_path):
    tensors = of(K) | {f"extra.{i}": torch.ones(1) for i in range(3)} | {f"{kohya(V)}.alpha": torch.ones(())}
    write_tensors(tensors, tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError) as error:
        read_lora(tmp_path / "a.safetensors")
    text = str(error.value)
    assert "4 of 6 tensors cannot be read" in text and "'extra.0' and 2 more: " in text and "--partial" in text
    lora = read_lora(tmp_path / "a.safetensors", partial=True)
    assert [*lora.layers] == [K] and len(lora.left_out) == 4


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    write_tensors({f"{kohya(K)}.dora_scale": torch.ones(3)}, tmp_path / "a.safetensors")
    with pytest.raises(FileFormatError, match="holds nothing that can be read"):
        read_lora(tmp_path / "a.safetensors", partial=True)


@pytest.mark.parametrize("style", ["kohya", "comfy", "diffusers"])
def test_concepts_become_lora_files(tmp_path, style):
    concept = load_concept(ANNA)
    lora = read_lora(ANNA)
    assert lora.layers.keys() == concept.layers.keys() and [*lora.embeddings] == ["<anna>"]
    assert lora.metadata["modelspec.trigger_phrase"] == concept.manifest.trigger
    write_lora(lora, tmp_path / "a.safetensors", style=style, embeddings="none")
    again = read_lora(tmp_path / "a.safetensors")
    for layer, change in concept.layers.items():
        assert torch.equal(again.layers[layer].delta(), change.delta())


def test_tokens_that_no_embedding_holds_are_named():
    concept = load_concept(ANNA)
    layers = ("unet.a", "unet.b")
    tokens = {name: LayerVectors.of(torch.ones(2, 192), layers) for name in concept.tokens}
    concept = replace(concept, tokens=tokens)
    with pytest.raises(FileFormatError, match="which no embedding file holds.*--partial leaves them out"):
        lora_of_concept(concept)
    lora = lora_of_concept(concept, partial=True)
    assert lora.left_out.keys() == concept.tokens.keys() and not lora.embeddings


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("value", [0.0, 1.0, -1.5, 0.015625, 448.0, 0.001953125, 2.0])
def test_numbers_are_read_without_torch_as_torch_reads_them(tmp_path, dtype, value):
    tensor = torch.tensor(value).to(dtype)
    save_file({"a": tensor}, tmp_path / "a.safetensors")
    path = tmp_path / "a.safetensors"
    assert read_numbers(path, read_header(path), ["a"]) == {"a": float(tensor)}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_are_read_without_torch(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.tensor([7], dtype=dtype), "b": torch.ones(2), "c": torch.tensor(True)}, path)
    assert read_numbers(path, read_header(path), "abc") == {"a": 7.0}


def test_a_header_is_read_without_torch(tmp_path):
    write_tensors(of(*SIZES, alpha=2), tmp_path / "a.safetensors")
    code = (
        "import sys; from pathlib import Path; from orthoplex.concepts.exchange import lora_summary;"
        f"s = lora_summary(Path({str(tmp_path / 'a.safetensors')!r}));"
        "assert s.version == 'vignette' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "words"),
    [("down", "lora_down.weight' has type I32; allowed are F64"), ("scale", "in its alpha, its scale and")],
)
def test_what_the_header_says_is_refused_before_numbers_are_read(tmp_path, name, words):
    """So inspect shows it, and a partial reading leaves it out."""
    path, tensors = tmp_path / "a.safetensors", of(K, V, alpha=2)
    if name == "scale":
        tensors[f"{kohya(K)}.scale"] = torch.tensor(3.0)
    else:
        tensors[DOWN] = tensors[DOWN].int()
    write_tensors(tensors, path)
    assert any(words in reason for reason in lora_contents(path).refused.values())
    with pytest.raises(FileFormatError, match=words):
        read_lora(path)
    assert [*read_lora(path, partial=True).layers] == [V]


def test_settings_beside_a_file_of_peft_count_whatever_its_name(tmp_path, caplog):
    path = tmp_path / "mine.safetensors"
    tensors = of(K, name=lambda layer: "base_model.model." + layer.partition(".")[2], peft=True)
    write_tensors(tensors, path)
    down, up = tensors.values()
    assert torch.equal(read_lora(path).layers[K].delta(), up @ down)
    assert "its keys are PEFT's, which keeps alpha in adapter_config.json, and none is beside it" in caplog.text
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 4, "r": 2}')
    caplog.clear()
    assert torch.equal(read_lora(path).layers[K].delta(), 2 * (up @ down)) and not caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"r": 1e999}', b'{"r": "x"}', b"null"])
def test_damaged_settings_are_named(tmp_path, content):
    write_tensors(of(K, name=same, peft=True), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(FileFormatError, match="adapter_config.json"):
        read_lora(tmp_path)


def test_an_adapter_without_tensors_says_what_is_missing(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    words = "is an adapter of PEFT without its tensors, adapter_model.safetensors"
    with pytest.raises(FileFormatError, match=words + "$"):
        read_lora(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(FileFormatError, match=words + "; adapter_model.bin is a pickle, PEFT writes it anew"):
        read_lora(tmp_path)
