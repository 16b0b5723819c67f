"""The autoencoder's encoder is patch PCA, and the denoiser's loop resumes and averages as it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from orthoplex.models import load_base
from pretraining import tokenizer
from pretraining.autoencoder import LATENTS, PatchPca, build, fit_pca, picture_tensor
from pretraining.channels import projected
from pretraining.compose import Box, Factors, Thing
from pretraining.decoder import DecoderConfig, DenoisedLatents, crop_batch, noise_levels
from pretraining.denoiser import (
    focus_weights,
    random_timesteps,
    scheduler,
)
from pretraining.export import loss_curve
from pretraining.muon import Muon, Shared, layout, named, orthogonalised
from pretraining.refine import RefineConfig, denoised_latents
from pretraining.rounding import rounded
from pretraining.training_set import inside_boxes, keep_latent_space


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (24, 9, 9, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((1, 15, 15, 1)))[:, :128, :128].astype(np.uint8)


def test_the_stock_encoder_computes_patch_pca(pictures: np.ndarray) -> None:
    pca = fit_pca(pictures)
    x = torch.from_numpy(pictures[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        posterior = build(pca).encode(x).latent_dist
    torch.testing.assert_close(posterior.mean, pca.encode(x), atol=0.02, rtol=2e-3)
    assert posterior.std.max() < 1e-5


def test_a_shipped_encoder_tells_its_latent_space(pictures: np.ndarray, tmp_path: Path) -> None:
    """After fp16 files, too; a run goes on in it, and not in another one."""
    pca, other = fit_pca(pictures), fit_pca(pictures[:, ::-1].copy(), balance=0.3)
    build(pca).half().save_pretrained(tmp_path / "base" / "vae")
    keep_latent_space(tmp_path, tmp_path / "base")
    keep_latent_space(tmp_path, tmp_path / "base")  # the same again
    found, x = PatchPca.load(tmp_path), picture_tensor(pictures[:4])
    torch.testing.assert_close(found.encode(x), pca.encode(x), atol=5e-3, rtol=0)
    build(other).save_pretrained(tmp_path / "other" / "vae")
    with pytest.raises(ValueError, match=r"pca.pt holds another latent space than .*other; move it away"):
        keep_latent_space(tmp_path, tmp_path / "other")


def test_a_latent_space_gets_the_components_it_lacks(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was stays; the others are what a fit of all would have taken."""
    whole = fit_pca(pictures)
    few = PatchPca(whole.mean, whole.components[:12])
    build(few).save_pretrained(tmp_path / "base" / "vae")
    (tmp_path / "pictures").mkdir()
    np.save(tmp_path / "pictures" / "pictures-0000.npy", pictures)
    row = json.dumps({"things": [], "scene": "a cave", "style": None})
    (tmp_path / "pictures" / "pictures-0000.jsonl").write_text(f"{row}\n" * len(pictures))
    keep_latent_space(tmp_path, tmp_path / "base")
    keep_latent_space(tmp_path, tmp_path / "base")  # the same again
    found, x = PatchPca.load(tmp_path).encode(picture_tensor(pictures)), picture_tensor(pictures)
    torch.testing.assert_close(found[:, :12], few.encode(x), atol=5e-3, rtol=0)
    wanted = whole.encode(x)[:, 12:]
    signs = (found[:, 12:] * wanted).sum((0, 2, 3)).sign()[:, None, None]
    torch.testing.assert_close(found[:, 12:] * signs, wanted, atol=0.02, rtol=0.02)
    few.save(tmp_path)
    with pytest.raises(ValueError, match=r"pca.pt holds 12 components; allowed is 16: move it and the checkpoints"):
        PatchPca.load(tmp_path)
    with pytest.raises(ValueError, match=r"the latent space has 17 components; allowed are at most 16"):
        build(fit_pca(pictures, count=17))
    AutoencoderKL(latent_channels=20).save_pretrained(tmp_path / "wide" / "vae")
    with monkeypatch.context() as patched:
        patched.setattr(PatchPca, "of", lambda vae: fit_pca(pictures, count=vae.config["latent_channels"]))
        with pytest.raises(ValueError, match=r"wide has 20 latent channels; allowed are at most 16"):
            keep_latent_space(tmp_path, tmp_path / "wide")


def test_what_the_components_hold_comes_back(pictures: np.ndarray) -> None:
    x = picture_tensor(pictures)
    errors = [float((projected(x, fit_pca(pictures, count=count)) - x).square().mean()) for count in (4, 40, 192)]
    assert errors[0] > 10 * errors[1] and errors[2] < 1e-6


def test_latents_have_one_scale_and_components_are_orthogonal(pictures: np.ndarray) -> None:
    pca = fit_pca(pictures, balance=0.5)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = pca.encode(x)
    assert latents.var((0, 2, 3)).mean() == pytest.approx(1.0, abs=0.05)
    rows = torch.nn.functional.normalize(pca.components.reshape(LATENTS, -1), dim=1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(LATENTS), atol=1e-4, rtol=0)


def test_the_last_timestep_holds_no_signal() -> None:
    assert scheduler().alphas_cumprod[-1] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_orthogonalising_keeps_singular_vectors_and_evens_singular_values(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(24, 40, generator=generator)
    for given in (matrix, matrix.T):
        made = orthogonalised(given.to(dtype))
        assert made.dtype == dtype
        found = made.float()
        values = torch.linalg.svdvals(found)
        assert 0.6 < values.min()
        assert values.max() < 1.3
        u, _, v = torch.linalg.svd(given, full_matrices=False)
        assert (found - u @ v).norm() < 0.3 * (u @ v).norm()


def small_network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Conv2d(8, 4, 3), torch.nn.Linear(4, 8, bias=False))


def test_every_parameter_has_one_owner_and_keeps_its_name() -> None:
    network = small_network()
    slices = layout(network, 2)
    assert {part.owner for part in slices} == {0, 1}
    assert [part.start for part in slices[1:]] == [part.stop for part in slices[:-1]]
    weights = Shared(network).weights
    for name, value in named(network, weights).items():
        torch.testing.assert_close(value, dict(network.named_parameters())[name])


def test_the_working_copy_is_one_in_float32_too() -> None:
    shared = Shared(small_network(), 2, dtype=torch.float32)
    assert {shared.working.dtype, shared.gradients.dtype} == {torch.float32}
    before = shared.working.clone()
    shared.weights.add_(1.0)
    assert torch.equal(shared.working, before)
    shared.load_state_dict(shared.state_dict())
    torch.testing.assert_close(shared.working, before + 1.0, atol=0.1, rtol=0)
    kept = named(small_network(), shared.working)["1.weight"].flatten()
    assert torch.equal(kept, rounded(kept, torch.Size([4, 8, 3, 3]), 16))


def gradients_of(process: int, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * process + step)
    return [torch.randn(p.shape, generator=generator).bfloat16() for p in small_network().parameters()]


def run_steps(per_process: list[list[list[torch.Tensor]]]) -> Shared:
    """`per_process[process][step]` are gradients of all parameters."""
    networks = [small_network().bfloat16() for _ in per_process]
    shared = Shared(small_network(), len(per_process))
    optimizers = [Muon(network, shared, rank) for rank, network in enumerate(networks)]
    for step in range(len(per_process[0])):
        for network, steps in zip(networks, per_process, strict=True):
            for parameter, gradient in zip(network.parameters(), steps[step], strict=True):
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.gather()
        for optimizer in optimizers:
            optimizer.update(learning_rate=0.1, adam_learning_rate=0.01, step=step + 1, ema_decay=0.5)
    return shared


def test_two_processes_step_as_one_with_the_mean_gradient() -> None:
    first, second = ([gradients_of(process, step) for step in range(2)] for process in range(2))
    mean = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)]
    together, alone, one_sided = run_steps([first, second]), run_steps([mean]), run_steps([first])
    for name in ("weights", "average", "first"):
        ours, theirs = getattr(together, name), getattr(alone, name)
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)
        assert (ours - getattr(one_sided, name)).abs().max() > 5e-2
    for part in together.slices:
        own = slice(part.start, part.stop)
        wanted = rounded(together.weights[own], part.shape, 16).bfloat16()
        assert torch.equal(together.working[own], wanted), part.name


def test_weights_of_another_network_are_refused() -> None:
    network = small_network()
    with pytest.raises(ValueError, match="3 weights were kept; the model has"):
        named(network, torch.zeros(3))


def test_a_quarter_of_the_crops_get_exact_latents() -> None:
    levels = noise_levels(20_000, torch.Generator().manual_seed(0))
    assert (levels == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert levels[levels > 0].mean() == pytest.approx(0.5, abs=0.01)
    assert levels.max() <= 1


def test_denoised_latents_stand_for_their_own_pictures_and_the_rest_is_encoded(pictures: np.ndarray) -> None:
    pca = fit_pca(pictures)
    whole = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    rows = torch.tensor([5, 2, 7])
    denoised = DenoisedLatents(pca.encode(whole[rows]).half(), rows)
    for step in (0, 1):  # as they are, and mirrored
        latents, target = crop_batch(DecoderConfig(batch_size=8, latent_noise=0.0), pictures, pca, denoised, step)
        assert latents.shape == (8, LATENTS, 8, 8)
        assert target.shape == (8, 3, 64, 64)
        torch.testing.assert_close(latents, pca.encode(target), atol=5e-3, rtol=0)
        alone, crops = crop_batch(DecoderConfig(batch_size=8, latent_noise=0.0), pictures, pca, None, step)
        torch.testing.assert_close(alone, pca.encode(crops))


def test_the_denoiser_keeps_the_layout_of_what_it_is_given() -> None:
    pipeline = load_base("vignette").pipeline
    ramp = np.broadcast_to(np.linspace(0, 255, 128)[:, None, None], (128, 128, 3)).astype(np.uint8)
    data = np.stack([ramp, 255 - ramp, ramp])
    factors = [Factors((), scene, None) for scene in ("beach", "desert", "forest")]
    config = RefineConfig(pictures=2, batch_size=2, steps=4, fewest=1, most=1)
    (found,) = denoised_latents(config, pipeline, data, factors)
    assert len(set(found.rows.tolist())) == 2
    clean = pipeline.vae.encode(picture_tensor(data[found.rows.numpy()])).latent_dist.mean
    for made, given in zip(found.latents.float(), clean, strict=True):
        assert torch.corrcoef(torch.stack([made.flatten(), given.flatten()]))[0, 1] > 0.8


def test_the_perceptual_distance_is_zero_for_equal_pictures_and_pulls_one_side_only() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    from pretraining.perceptual import Perceptual

    distance, generator = Perceptual(), torch.Generator().manual_seed(0)
    pictures, target = torch.rand(2, 2, 3, 64, 64, generator=generator).requires_grad_().unbind()
    assert distance(pictures, pictures) == 0
    found = distance(pictures, target)
    (gradient,) = torch.autograd.grad(found, pictures, retain_graph=True)
    assert 0 < found < 4
    assert gradient.abs().max() > 0
    assert torch.autograd.grad(found, target, allow_unused=True) == (None,)


def test_only_merges_that_a_word_needs_are_kept() -> None:
    table = [("a", "t</w>"), ("c", "at</w>"), ("d", "o"), ("do", "g</w>")]
    assert tokenizer.merges_needed(table, ["cat"]) == [("a", "t</w>"), ("c", "at</w>")]
    assert tokenizer.merges_needed(table, ["do"]) == []
    assert len(set(tokenizer.byte_alphabet())) == 256


def test_the_loss_curve_shows_what_a_resumed_run_did_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axes, x, y, **_: drawn.append((x, y)))
    lines = [{"samples": 1, "loss": 3.0}, {"samples": 2, "loss": 9.0}, {"samples": 2, "loss": 2.0}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    loss_curve(tmp_path / "log.jsonl", tmp_path / "curve.svg")
    assert drawn == [([1, 2], [3.0, 2.0])]
    assert (tmp_path / "curve.svg").is_file()


def test_things_weigh_more_than_the_scene_and_every_picture_the_same() -> None:
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[0, :2] = True
    weights = focus_weights(inside, focus=2.0)
    torch.testing.assert_close(weights.mean((1, 2)), torch.ones(2))
    torch.testing.assert_close(weights[0, 0, 0] / weights[0, 3, 3], torch.tensor(3.0))
    assert (weights[1] == 1).all()


def test_timesteps_cover_the_schedule_and_lie_more_often_in_the_noisy_middle() -> None:
    drawn = random_timesteps(40_000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0
    assert drawn.max() == 999
    tenths = torch.bincount(drawn // 100, minlength=10) / len(drawn)
    assert tenths.min() > 0.045
    assert tenths[7] > 1.4 * tenths[0]
    few = random_timesteps(96, torch.Generator().manual_seed(1))[:48]  # the even half: one from each part
    torch.testing.assert_close(few * 0.048, torch.arange(48) + 0.5, atol=0.55, rtol=0)


def test_latents_in_a_box_are_the_ones_it_touches() -> None:
    inside = inside_boxes(Factors((Thing(Box(8, 60, 16), subject="fox", family="noto"),), "a forest", None))
    assert inside[:, :1].sum() == inside[:, 3:].sum() == 0
    assert inside[7:10, 1:3].all()
    assert inside.sum() == 6
    outside = inside_boxes(Factors((Thing(Box(-4, 120, 20), subject="fox", family="noto"),), "a forest", None))
    assert outside.sum() == 2
