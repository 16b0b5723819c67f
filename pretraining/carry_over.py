"""Begin with the networks of another base, though the vocabulary has grown, or the number of latent channels.

Words that were several tokens are one now. Token embeddings go by the token's text, and those of new tokens are the
mean of the tokens they were before. Then the text encoder is taught to say of every word, at its end, what the other
base's said at the end of its last token, so that the denoiser goes on with what it knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from pretraining.denoiser import Denoiser


@dataclass(frozen=True)
class Lesson:
    """Knobs of teaching the text encoder: AdamW, a cosine to zero."""

    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Lines:
    """Texts in two vocabularies.

    Attributes:
        before: Token numbers of the other base, (n, length).
        now: Token numbers in the new vocabulary, (n, length).
        places: For every token of `now`, the token of `before` that ends where it does, (n, length); −1 for none.
    """

    before: Tensor
    now: Tensor
    places: Tensor


def carry_over(
    model: Denoiser, folder: Path, words: CLIPTokenizer, texts: Sequence[str], lesson: Lesson | None = None
) -> Iterator[float]:
    """Put the networks of a pipeline folder into a model whose vocabulary is that of `words`.

    `texts` are what the text encoder is taught with where tokens differ. Yields the loss of every step: the mean
    squared difference of features, per their variance.

    Raises:
        RuntimeError: When the networks have other shapes.
        ValueError: When they have more latent channels.
    """
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()
    model.unet.load_state_dict(with_more_channels(unet, model.unet))
    teacher = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).eval()
    before = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    state = teacher.state_dict()
    name = next(key for key in state if key.endswith("token_embedding.weight"))
    model.text_encoder.load_state_dict(state | {name: embeddings(state[name], before, words)})
    if before.get_vocab() != words.get_vocab():
        yield from _teach(model.text_encoder, teacher, lines(texts, before, words), lesson or Lesson())


def with_more_channels(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A state for a network that takes more latent channels, or makes more.

    The weights of the first and the last convolution that belong to the new ones are zero.

    Raises:
        ValueError: When the network takes fewer.
    """
    out = dict(state)
    for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias"):
        before, now = state[name].shape, network.get_parameter(name).shape
        if any(had > has for had, has in zip(before, now, strict=True)):
            raise ValueError(f"{name} has shape {tuple(before)}; allowed is at most {tuple(now)}")
        out[name] = torch.zeros(now)
        out[name][tuple(slice(size) for size in before)] = state[name]
    return out


def embeddings(rows: Tensor, before: CLIPTokenizer, words: CLIPTokenizer) -> Tensor:
    """Token embeddings (n, width) in a new vocabulary: those there were, or the mean of the tokens of the same text."""
    known = before.get_vocab()

    def row(token: str) -> Tensor:
        if token in known:
            return rows[known[token]]
        *parts, last = before.tokenize(token.removesuffix("</w>"))
        if not token.endswith("</w>"):  # a part of a word: nothing in it ends one
            last = last.removesuffix("</w>")
        parts += [last] if last in known else list(last)  # single letters are always known
        return rows[[known[part] for part in parts]].mean(0)

    return torch.stack([row(token) for token, _ in sorted(words.get_vocab().items(), key=lambda item: item[1])])


def lines(texts: Sequence[str], before: CLIPTokenizer, words: CLIPTokenizer) -> Lines:
    """Texts that neither vocabulary cuts, in both; ends of text, and what fills up, answer to one another."""
    length, kept = words.model_max_length, []
    options = {"padding": "max_length", "max_length": length, "return_offsets_mapping": True}
    for text in dict.fromkeys(texts):
        old, new = before(text, **options), words(text, **options)
        if max(len(old.input_ids), len(new.input_ids)) > length:
            continue
        ends = {end: place for place, (start, end) in enumerate(old.offset_mapping) if end > start}
        stop = 1 + max(ends.values(), default=0)
        places = [
            0 if place == 0 else ends.get(end, -1) if end > start else max(place, stop)
            for place, (start, end) in enumerate(new.offset_mapping)
        ]
        kept.append((old.input_ids, new.input_ids, places))
    return Lines(*(torch.tensor(column) for column in zip(*kept, strict=True)))


def _teach(pupil: CLIPTextModel, teacher: CLIPTextModel, data: Lines, lesson: Lesson) -> Iterator[float]:
    generator = torch.Generator().manual_seed(lesson.seed)
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=lesson.learning_rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lesson.steps)
    for _ in range(lesson.steps):
        chosen = torch.randint(len(data.now), (lesson.batch_size,), generator=generator)
        places = data.places[chosen]
        with torch.no_grad():
            features = teacher(data.before[chosen]).last_hidden_state
        wanted = features.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        said = pupil(data.now[chosen]).last_hidden_state
        loss = functional.mse_loss(said[places >= 0], wanted[places >= 0]) / features.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        yield loss.item()
