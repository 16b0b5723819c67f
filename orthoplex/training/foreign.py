"""Foreign inputs: prompts and pictures that do not hold the concept in training, as the base alone sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from orthoplex.adapters import Adapter
from orthoplex.errors import ConfigurationError
from orthoplex.models import Base, Conditioning
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import insert_trigger
from orthoplex.training.erasure import ErasureStatistics, collecting
from orthoplex.training.sampling import make_pictures
from orthoplex.training.text import replaced_vectors, word_spread

CLASS_WORDS = ("person", "animal", "food", "vehicle", "object", "plant", "building", "place", "painting")
"""Class words that foreign concepts may have, besides the concept's own."""

_TEMPLATES = ("a photo of {}", "a drawing of {}", "a picture of {}", "a view of {}", "{}")
_PURE_NOISE_FROM = 0.8
"""Share of the noise schedule after which latents are so noisy that pure noise stands for them."""


@dataclass(frozen=True, eq=False)
class ForeignPrompts:
    """Prompts without the concept.

    Attributes:
        plain: Prompts of the base's own words; the empty prompt is one of them.
        tokened: Prompts with the concept's token, in whose place random vectors are put.
        words: The class word behind the token in each of these.
        about_class: Those of the plain prompts that name the concept's class word alone.
    """

    plain: tuple[str, ...]
    tokened: tuple[str, ...]
    words: tuple[str, ...]
    about_class: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PriorPictures:
    """Pictures that the base made of plain foreign prompts.

    Attributes:
        latents: ``(n, c, h, w)``.
        ids: Token ids of their prompts, ``(n, length)``.
    """

    latents: Tensor
    ids: Tensor


def compose_foreign_prompts(
    config: TrainingConfig, *, token: str, class_word: str, prompts: Sequence[str], generator: torch.Generator
) -> ForeignPrompts:
    """Return ``config.erasure_prompts`` foreign prompts; a quarter is about the class word, a quarter has a token.

    Args:
        config: For the number of prompts.
        token: The concept's token.
        class_word: The concept's class word.
        prompts: Prompts of the base's own words, for the remaining half; repeated as often as needed.
        generator: Decides the order of ``prompts``.

    Raises:
        ConfigurationError: When there are no prompts.
    """
    if not prompts:
        raise ConfigurationError("foreign_prompts holds 0 prompts; allowed is a list of at least 1")
    quarter = config.erasure_prompts // 4
    around_class = [
        "" if i == 0 else _TEMPLATES[i % len(_TEMPLATES)].format(with_article(class_word))
        for i in range(max(1, quarter))
    ]
    order = torch.randperm(len(prompts), generator=generator).tolist()
    known = list(prompts)
    shuffled = [known[i] for i in order]
    holding = _with_token(shuffled, token, class_word)
    chosen = [holding[i % len(holding)] for i in range(quarter)]
    remaining = config.erasure_prompts - len(around_class) - len(chosen)
    plain = [shuffled[i % len(shuffled)] for i in range(remaining)]
    return ForeignPrompts(
        plain=(*plain, *around_class),
        tokened=tuple(prompt for prompt, _ in chosen),
        words=tuple(word for _, word in chosen),
        about_class=tuple(dict.fromkeys(around_class[1:])),
    )


def with_article(class_word: str) -> str:
    """Return "a person", "an animal": how prompts of the base's own words name a class."""
    return f"{'an' if class_word[:1].lower() in 'aeiou' else 'a'} {class_word}"


def _with_token(prompts: Sequence[str], token: str, class_word: str) -> list[tuple[str, str]]:
    """Prompts with the token before a class word, and that word: in turn templates, and prompts that name one."""
    words = (class_word, *(word for word in CLASS_WORDS if word != class_word))
    templates = [(template.format(f"{token} {word}"), word) for template in _TEMPLATES for word in words]
    named = [
        (insert_trigger(prompt, token=token, class_word=word, trigger=f"{token} {word}"), word)
        for prompt in prompts
        for word in words
        if word in prompt.split()
    ]
    pairs = zip_longest(templates, named)
    return [found for pair in pairs for found in pair if found is not None]


def random_vectors(base: Base, words: Sequence[str], *, num_vectors: int, generator: torch.Generator) -> Tensor:
    """Return vectors of concepts that do not exist, ``(len(words), num_vectors, dim)``.

    Each is the embedding of its class word moved by noise of 0.5 to 1.7 times the spread of the base's words, about as
    far as learned tokens move (docs/methods.md); every fourth is drawn from the spread alone.

    Args:
        base: The base.
        words: The class word of each.
        num_vectors: How many vectors a concept has.
        generator: Decides the noise.
    """
    spread, count = word_spread(base), len(words)
    if not words:  # of fewer than four foreign prompts none has a token
        return torch.zeros(0, num_vectors, len(spread.mean))
    centres = {word: base.family.words.class_vector(word).cpu() for word in dict.fromkeys(words)}
    noise = torch.randn(count, num_vectors, len(spread.mean), generator=generator) * spread.deviation
    strength = 0.5 + 1.2 * torch.rand(count, 1, 1, generator=generator)
    vectors = torch.stack([centres[word] for word in words]).unsqueeze(1) + strength * noise
    alone = (torch.arange(count) % 4 == 3).view(-1, 1, 1)
    return torch.where(alone, spread.mean + noise, vectors)


def strangers(
    base: Base,
    config: TrainingConfig,
    *,
    token: str,
    class_word: str,
    prompts: Sequence[str],
    generator: torch.Generator,
    count: int | None = None,
) -> tuple[ForeignPrompts, Tensor]:
    """Return foreign prompts, and token vectors of concepts that do not exist, ``(count, num_vectors, dim)``.

    The class words of these concepts are those of the prompts in turn; the concept's own where no prompt has any.

    Args:
        base: The base.
        config: For the numbers of prompts and of vectors.
        token: The concept's token.
        class_word: The concept's class word.
        prompts: Prompts of the base's own words.
        generator: Decides order and noise.
        count: How many concepts; None makes one for each prompt that has a token.

    Raises:
        ConfigurationError: When there are no prompts.
    """
    composed = compose_foreign_prompts(config, token=token, class_word=class_word, prompts=prompts, generator=generator)
    known = composed.words or (class_word,)
    words = [known[i % len(known)] for i in range(len(composed.words) if count is None else count)]
    return composed, random_vectors(base, words, num_vectors=config.num_vectors, generator=generator)


@torch.no_grad()
def make_prior_pictures(base: Base, config: TrainingConfig, prompts: Sequence[str]) -> PriorPictures:
    """Let the base picture ``config.prior_pictures`` foreign prompts; only latents are kept, nothing is decoded."""
    chosen = [prompts[i % len(prompts)] for i in range(config.prior_pictures)]
    quick = replace(config, num_inference_steps=config.prior_inference_steps)
    latents = []
    for start in range(0, len(chosen), config.batch_size):
        part = chosen[start : start + config.batch_size]
        latents.append(make_pictures(base, quick, part, seed=config.seed + start, decoded=False).latents.float())
    return PriorPictures(torch.cat(latents), base.family.words.ids(chosen))


@dataclass(frozen=True, eq=False)
class ForeignInputs:
    """What the denoiser is given when it works on prompts without the concept.

    Attributes:
        ids: Token ids of the prompts, ``(n, length)``.
        vectors: What stands in the place of the concept's k tokens, ``(n, k, dim)``.
        noisy: Noised latents, ``(n, c, h, w)``.
        times: How noised, ``(n,)``, as the base's schedule has them.
    """

    ids: Tensor
    vectors: Tensor
    noisy: Tensor
    times: Tensor

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.ids)

    def take(self, chosen: Tensor) -> "ForeignInputs":
        """The inputs numbered ``chosen``."""
        return ForeignInputs(self.ids[chosen], self.vectors[chosen], self.noisy[chosen], self.times[chosen])

    def conditioning(self, base: Base, tokens: Sequence[str]) -> Conditioning:
        """Return all of the prompts as the denoiser takes them; see ``predict``."""
        with replaced_vectors(base, tokens, self.vectors):
            return base.family.condition(self.ids).to(base.dtype)

    def predict(self, base: Base, tokens: Sequence[str]) -> Tensor:
        """Return what the denoiser predicts for all of them, ``(n, c, h, w)``, with whatever is attached now.

        Args:
            base: The base; its tokenizer knows the concept's tokens.
            tokens: The names of the concept's k tokens.
        """
        return base.family.predict(self.noisy, self.times, self.conditioning(base, tokens))


def draw_foreign_inputs(
    base: Base,
    *,
    prompts: ForeignPrompts,
    vectors: Tensor,
    latents: Tensor | None,
    generator: torch.Generator,
) -> ForeignInputs:
    """Give every foreign prompt a noised latent, in random order.

    Args:
        base: The base; its tokenizer knows the concept's tokens.
        prompts: Foreign prompts.
        vectors: ``(len(prompts.tokened), k, dim)``: what stands in the place of the concept's tokens.
        latents: Prior latents ``(n, c, h, w)``, noised at any time; None takes pure noise at late times.
        generator: Decides order, noise and times.
    """
    schedule = base.family.schedule
    ids = base.family.words.ids([*prompts.tokened, *prompts.plain])
    vectors = torch.cat([vectors, torch.zeros(len(prompts.plain), *vectors.shape[1:])])
    order = torch.randperm(len(ids), generator=generator)
    noise = base.family.noise(len(ids), generator)
    times = schedule.draw(len(ids), generator, earliest=0.0 if latents is not None else _PURE_NOISE_FROM)
    noisy = noise
    if latents is not None:
        noisy = schedule.add_noise(latents[order % len(latents)].cpu(), noise, times)
    return ForeignInputs(ids[order], vectors[order], noisy, times)


@torch.no_grad()
def gather_statistics(
    base: Base,
    config: TrainingConfig,
    adapters: Mapping[str, Adapter],
    linears: Mapping[str, Any],
    *,
    inputs: ForeignInputs,
    tokens: Sequence[str],
) -> dict[str, ErasureStatistics]:
    """Run the base over foreign inputs and return what its layers saw, positions of the text weighed.

    Args:
        base: The base, with no adapter attached; its tokenizer knows the concept's tokens.
        config: For the batch size.
        adapters: Layer name to adapter.
        linears: Layer name to the base's layer.
        inputs: Foreign inputs.
        tokens: The names of the concept's k tokens.
    """
    weights = position_weights(base, inputs.ids, tokens)
    with collecting(linears, adapters, base.family.text_layers(adapters)) as collector:
        for chosen in torch.arange(len(inputs)).split(config.batch_size):
            collector.weights = weights[chosen]
            inputs.take(chosen).predict(base, tokens)
    return collector.statistics()


def position_weights(base: Base, ids: Tensor, tokens: Sequence[str]) -> Tensor:
    """How much every position of prompts counts where layers see the text, ``(n, length)``.

    Words, concepts' tokens, and what is the same in all prompts (the beginning, the end, and what fills up behind it)
    count as much as one another in sum; else the last would be nearly all, and the tokens of other concepts, which an
    update must not answer, next to nothing. The weights sum to the number of positions.

    Args:
        base: The base.
        ids: Token ids of the prompts, ``(n, length)``.
        tokens: The names of the concepts' tokens.
    """
    words = base.family.words
    filling = words.filling(ids)
    named = words.places(ids, tokens).any(1) & ~filling
    groups = [group for group in (filling, named, ~(filling | named)) if group.any()]
    shares = (group / group.sum() for group in groups)
    return sum(shares, torch.zeros(filling.shape)) * (filling.numel() / len(groups))
