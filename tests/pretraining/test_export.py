"""What ships is the end of a run with a decoder refined for it, and the record of a run is that of its checkpoint."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from orthoplex import vignette
from orthoplex.models import load_base
from pretraining import train
from pretraining.autoencoder import PatchPca, build, fit_pca
from pretraining.checkpoint import kept_number
from pretraining.decoder import DecoderConfig, train_decoder
from pretraining.denoiser import DenoiserConfig
from pretraining.export import DECODER, denoiser_key, export, pipeline, refined_decoder, round_trained
from pretraining.rounding import DECODER_STEPS, rounded
from pretraining.tokenizer import vocabulary_hash


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with an end of a run that is no more than its hash and its numbers."""
    pca = fit_pca(np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3)).astype(np.uint8))
    pca.save(tmp_path)
    torch.save({"average": build(pca).decoder.state_dict(), "step": 3}, tmp_path / DECODER)
    CLIPTokenizer.from_pretrained(vignette.folder(), subfolder="tokenizer").save_pretrained(tmp_path / "tokenizer")
    put(tmp_path, samples=8)
    return tmp_path


def put(work: Path, *, samples: int, **other: str) -> None:
    own = {
        "vocabulary": vocabulary_hash(CLIPTokenizer.from_pretrained(work / "tokenizer")),
        "latent_space": PatchPca.load(work).key,
    }
    told = {
        "average": torch.zeros(3),
        "samples": samples,
        "config": {"samples": 8, "rounding_steps": 16},
        **own,
        **other,
    }
    torch.save(told, work / "denoiser.pt")


def test_only_the_end_of_a_run_with_its_own_decoder_ships(work: Path) -> None:
    target = work / "out" / "base"
    with pytest.raises(FileNotFoundError, match="there is no .*decoder-refined-.*; refine the decoder for this denois"):
        export(work, target)
    put(work, samples=6)
    with pytest.raises(ValueError, match=r"denoiser.pt has seen 6 of 8 samples; what ships is the end of a run"):
        export(work, target)
    assert not target.exists()


def test_all_that_was_trained_is_rounded_but_biases_norms_and_the_encoder() -> None:
    torch.manual_seed(0)
    pipe = load_base("vignette").pipeline
    networks = {"unet": pipe.unet, "text_encoder": pipe.text_encoder, "decoder": pipe.vae.decoder}
    for network in networks.values():
        for weights in network.parameters():
            weights.data += 1e-3 * torch.randn_like(weights)
    before = {name: weights.clone() for name, weights in named_weights(networks | {"encoder": pipe.vae.encoder})}
    round_trained(pipe, 16)
    for name, weights in named_weights(networks | {"encoder": pipe.vae.encoder}):
        if weights.ndim == 1 or name.startswith("encoder"):
            assert torch.equal(weights, before[name]), name
        else:
            steps = DECODER_STEPS if name.startswith("decoder") else 16
            assert torch.equal(weights, rounded(before[name], weights.shape, steps)), name
            assert not torch.equal(weights, before[name]), name


def named_weights(networks: dict[str, torch.nn.Module]) -> list[tuple[str, torch.Tensor]]:
    return [
        (f"{label}.{name}", weights.detach())
        for label, network in networks.items()
        for name, weights in network.named_parameters()
    ]


@pytest.mark.parametrize("name", ["vocabulary", "latent_space"])
def test_a_denoiser_of_other_words_or_latents_is_refused(work: Path, name: str) -> None:
    put(work, samples=8, **{name: "of another run"})
    with pytest.raises(ValueError, match=f"denoiser.pt was trained for another {name} than {work} has"):
        pipeline(work)


def test_without_a_decoder_there_is_no_pipeline(work: Path) -> None:
    (work / DECODER).unlink()
    refined = refined_decoder(work, denoiser_key(work, torch.zeros(3)))
    with pytest.raises(FileNotFoundError, match=f"there is neither {refined} nor .*{DECODER}; train the decoder first"):
        pipeline(work)


def test_a_log_goes_on_where_the_checkpoint_is(work: Path) -> None:
    log = work / "results" / "decoder.jsonl"
    train._begin_log(log, 0)
    assert log.read_text() == ""
    log.write_text("".join(json.dumps({"samples": samples}) + "\n" for samples in (16, 32, 48, 64)))
    train._begin_log(log, 16 * kept_number(work / DECODER, "step"))
    assert [json.loads(line)["samples"] for line in log.read_text().splitlines()] == [16, 32, 48]
    train._begin_log(log, 16 * kept_number(work / "none.pt", "step"))
    assert log.read_text() == ""


def test_the_record_keeps_what_a_run_began_with(work: Path) -> None:
    train._note_denoiser(Namespace(work=work, initial=vignette.folder()), DenoiserConfig(samples=8), 0)
    first = json.loads((work / "denoiser.json").read_text())
    assert (first["samples"], first["initial"]["folder"]) == (8, "base")
    assert len(first["initial"]["hash"]) == 16
    train._note_denoiser(Namespace(work=work, initial=None), DenoiserConfig(samples=12), 8)
    assert json.loads((work / "denoiser.json").read_text()) == {**first, "samples": 12}


def test_a_decoder_may_be_kept_as_it_is(work: Path) -> None:
    pca, (first, second) = PatchPca.load(work), (work / "one.pt", work / "two.pt")
    initial = {name: value + 0.5 for name, value in build(pca).decoder.state_dict().items()}
    for target, weights in ((first, initial), (second, None)):
        assert not list(train_decoder(DecoderConfig(samples=0), np.zeros(0), pca, target, "cpu", initial=weights))
    held = torch.load(first, weights_only=True)
    assert held["latent_space"] == pca.key and kept_number(first, "step") == 0
    assert all(torch.equal(held["average"][name], value) for name, value in initial.items())
