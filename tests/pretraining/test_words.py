"""The tokenizer holds the words of today, and a base goes on with more words than it knew."""

import gzip
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from orthoplex import vignette
from orthoplex.models import load_base
from pretraining import tokenizer
from pretraining.autoencoder import PatchPca, build
from pretraining.carry_over import Lesson, carry_over, embeddings, lines, with_more_channels
from pretraining.denoiser import TEXT_WIDTH, Denoiser, build_unet

MERGES = "#version: 0.2\nf o\nfo x</w>\nq u\nqu o\nquo k</w>"


def built(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> CLIPTokenizer:
    """What `build` writes when the captions use these words."""
    table = folder.parent / "assets" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_bytes(gzip.compress(MERGES.encode()))
    monkeypatch.setattr(tokenizer, "ASSETS", folder.parent / "assets")
    monkeypatch.setattr(tokenizer, "words", lambda: list(words))
    return tokenizer.build(folder)


def test_new_words_are_in_a_tokenizer_that_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(tmp_path / "tokenizer", monkeypatch, "fox")
    assert first.tokenize("a fox quok") == ["a</w>", "fox</w>", "q", "u", "o", "k</w>"]
    second = built(tmp_path / "tokenizer", monkeypatch, "fox", "quok")
    assert second.tokenize("a fox quok") == ["a</w>", "fox</w>", "quok</w>"]
    assert second.model_max_length == tokenizer.MAX_LENGTH == len(second("", padding="max_length").input_ids)
    assert second.pad_token == second.eos_token and second.eos_token_id == len(second) - 1


def test_a_new_tokens_row_is_the_mean_of_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(tmp_path / "before", monkeypatch, "fox")
    now = built(tmp_path / "now", monkeypatch, "fox", "quok")
    rows = torch.randn(len(before), 4, generator=torch.Generator().manual_seed(0))
    old, new = before.get_vocab(), now.get_vocab()
    found = embeddings(rows, before, now)
    assert found.shape == (len(now), 4)
    for token in ("fox</w>", "q", "k</w>", before.eos_token):
        assert torch.equal(found[new[token]], rows[old[token]])
    torch.testing.assert_close(found[new["quok</w>"]], rows[[old[part] for part in ("q", "u", "o", "k</w>")]].mean(0))
    torch.testing.assert_close(found[new["qu"]], rows[[old["q"], old["u"]]].mean(0))
    assert found.isfinite().all()
    torch.testing.assert_close(found[new["quo"]], rows[[old[part] for part in ("q", "u", "o")]].mean(0))


def test_words_answer_to_the_ends_of_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(tmp_path / "before", monkeypatch, "fox")
    now = built(tmp_path / "now", monkeypatch, "fox", "quok")
    data = lines(["a quok fox", "a quok fox", " ".join(["quok"] * 20)], before, now)
    assert data.now.shape == data.before.shape == (1, tokenizer.MAX_LENGTH)  # once each, and none that is cut
    # start, a, quok (four tokens before), fox, end, and then what fills up
    assert data.places[0, :8].tolist() == [0, 1, 5, 6, 7, 7, 7, 7]
    assert data.places[0, -1] == tokenizer.MAX_LENGTH - 1
    assert data.before[0, data.places[0, 4:]].eq(before.eos_token_id).all()


def test_a_model_with_more_words_goes_on_with_what_the_networks_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_base("vignette").pipeline
    old = pipeline.tokenizer
    words = CLIPTokenizer.from_pretrained(vignette.folder(), subfolder="tokenizer")
    model = Denoiser(len(words))
    assert list(carry_over(model, vignette.folder(), words, ["a cat"])) == []  # nothing to learn
    for name, value in pipeline.text_encoder.state_dict().items():
        torch.testing.assert_close(model.text_encoder.state_dict()[name], value)
    for name, value in pipeline.unet.state_dict().items():
        found = model.unet.state_dict()[name]
        there = tuple(slice(size) for size in value.shape)
        torch.testing.assert_close(found[there], value)
        assert found.abs().sum() == found[there].abs().sum()  # of more channels, where the model has them, zeros
    few = built(tmp_path / "few", monkeypatch, "fox")
    assert few.get_vocab() != old.get_vocab()
    torch.manual_seed(0)
    losses = list(carry_over(Denoiser(len(few)), vignette.folder(), few, ["a cat", "cat a"], Lesson(30, 4)))
    assert len(losses) == 30 and sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_new_latent_channels_change_nothing_of_what_the_others_gave() -> None:
    before = build_unet(12).requires_grad_(False)
    network = build_unet(16).requires_grad_(False)
    network.load_state_dict(with_more_channels(before.state_dict(), network))
    latents = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    words, times = torch.randn(2, 5, TEXT_WIDTH, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 900])
    out = network(latents, times, words).sample
    torch.testing.assert_close(out[:, :12], before(latents[:, :12], times, words).sample)
    assert not out[:, 12:].any()
    with pytest.raises(
        ValueError, match=r"conv_in.weight has shape \(96, 16, 3, 3\); allowed is at most \(96, 12, 3, 3\)"
    ):
        with_more_channels(network.state_dict(), before)


def test_a_decoder_of_more_channels_shows_what_the_others_hold() -> None:
    pca = PatchPca(torch.zeros(3, 8, 8), torch.eye(192)[:16].reshape(16, 3, 8, 8))
    few = build(PatchPca(pca.mean, pca.components[:12])).decoder.requires_grad_(False)
    decoder = build(pca).decoder.requires_grad_(False)
    decoder.load_state_dict(with_more_channels(few.state_dict(), decoder))
    latents = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoder(latents), few(latents[:, :12]))
