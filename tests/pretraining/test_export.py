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
from pretraining.denoiser import DenoiserConfig
from pretraining.export import DECODER, denoiser_key, export, pipeline, refined_decoder, round_trained
from pretraining.rounding import rounded
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
    told = {"average": torch.zeros(3), "samples": samples, "config": {"samples": 8}, **own, **other}
    torch.save(told, work / "denoiser.pt")


def test_only_the_end_of_a_run_with_its_own_decoder_ships(work: Path) -> None:
    target = work / "out" / "base"
    with pytest.raises(FileNotFoundError, match="there is no .*decoder-refined-.*; refine the decoder for this denois"):
        export(work, target)
    put(work, samples=6)
    with pytest.raises(ValueError, match=r"denoiser.pt has seen 6 of 8 samples; what ships is the end of a run"):
        export(work, target)
    assert not target.exists()


def test_rounded_weights_lie_on_a_grid_of_a_power_of_two() -> None:
    weights = torch.tensor([-0.9, 0.3, 0.31, 1.1])  # deviation 0.73, whose quarter is nearest to 2 ** -2
    assert rounded(weights, 4).tolist() == [-1.0, 0.25, 0.25, 1.0]
    many = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert (rounded(many, 16) - many).abs().max() <= 1 / 32
    assert torch.equal(rounded(rounded(many, 16), 16), rounded(many, 16))
    assert torch.equal(rounded(many, 16).bfloat16().float(), rounded(many, 16))  # exact in what networks compute in
    assert torch.equal(rounded(torch.full((3,), 0.7), 16), torch.full((3,), 0.7))


def test_all_that_was_trained_is_rounded_and_the_encoder_is_not() -> None:
    pipe, before = load_base("vignette").pipeline, load_base("vignette").pipeline
    for network in (pipe.unet, pipe.text_encoder, pipe.vae.decoder):
        for weights in network.parameters():
            weights.data += 1e-3 * torch.randn_like(weights)
    round_trained(pipe)
    for network, steps in ((pipe.unet, 16), (pipe.text_encoder, 16), (pipe.vae.decoder, 64)):
        for name, weights in network.named_parameters():
            if weights.ndim > 1:
                counts = weights / torch.exp2(torch.floor(torch.log2(weights.std() / steps)))
                torch.testing.assert_close(counts, counts.round(), msg=name)
    for name, weights in before.vae.encoder.state_dict().items():
        assert torch.equal(pipe.vae.encoder.state_dict()[name], weights)
    assert not torch.equal(pipe.unet.conv_in.bias, before.unet.conv_in.bias.half().float())  # as it was trained


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
    config, results = DenoiserConfig(samples=8), work
    train._note_denoiser(Namespace(results=results, initial=vignette.folder()), config, 5, 0)
    first = json.loads((results / "denoiser.json").read_text())
    assert (first["samples"], first["pictures"], first["initial"]["folder"]) == (8, 5, "base")
    assert len(first["initial"]["hash"]) == 16
    longer = DenoiserConfig(samples=12)
    train._note_denoiser(Namespace(results=results, initial=None), longer, 5, 8)
    assert json.loads((results / "denoiser.json").read_text()) == {**first, "samples": 12}
