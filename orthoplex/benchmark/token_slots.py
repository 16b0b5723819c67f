"""Can a token's features lie in its concept's slot? Then no other slot would hear it, whatever was learned there.

    python -m orthoplex.benchmark.token_slots --output results/token-slots.json

A token vector is trained for nothing else, slot by slot: gradient ascent on the share of its features' energy, as the
keys and values of cross-attention see them in a concept's own prompts, that lies in the slot. A token that also has
to learn a concept will hardly come as far; a direction chosen blindly has 1 of as many parts as slots.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from orthoplex.activations.random_concepts import replaced_vectors
from orthoplex.benchmark.machine import machine
from orthoplex.concepts import KINDS, Manifest
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.errors import ConfigurationError
from orthoplex.files import write_json
from orthoplex.models import Base, load_base
from orthoplex.subspaces import choose_rows, proportional_rank, shared_basis_rows

TOKEN = "<token>"


@dataclass(frozen=True)
class TokenSlotSettings:
    """The options of the measurement.

    Attributes:
        base: The base.
        class_word: Where the token starts, and the word behind it in its prompts.
        slots: Into how many slots the features' width is cut.
        steps: Steps of Adam.
        learning_rate: Its rate.
    """

    base: str = "vignette"
    class_word: str = "person"
    slots: int = 16
    steps: int = 200
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        """Refuse numbers below 1."""
        for name in ("slots", "steps"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"token slots {name} is {getattr(self, name)}; allowed: 1 or more")


@dataclass(frozen=True)
class TokenInSlot:
    """One slot.

    Attributes:
        slot: Its number.
        before: Share of the energy of the token's features in the slot, as a class word.
        after: The same when it has been trained for it, mean over prompts.
        length: Norm of the trained vector, in norms of the class word's.
    """

    slot: int
    before: float
    after: float
    length: float


def token_in_slot(base: Base, settings: TokenSlotSettings, slot: int) -> TokenInSlot:
    """Train a token vector for a slot, and say how far it came."""
    family = base.family
    width = family.text_width
    rank = proportional_rank(width, settings.slots)
    chosen = choose_rows("slot", width=width, rank=rank, concept_id=TOKEN, layer="keys and values", slot=slot)
    rows = shared_basis_rows(width, chosen).to(base.dtype)
    start = family.words.class_vector(settings.class_word).cpu()
    manifest = Manifest(
        name="token",
        kind="person",
        class_word=settings.class_word,
        trigger=f"{TOKEN} {settings.class_word}",
        base=base.identity,
        method="none",
    )
    vector = start.clone().unsqueeze(0).requires_grad_()
    optimizer = torch.optim.Adam([vector], lr=settings.learning_rate)
    with base.with_tokens({TOKEN: Vector.of(start)}) as tokens:
        ids = family.words.ids(KINDS[manifest.kind].own_prompts(manifest.trigger))
        places = family.words.places(ids, tokens)[:, 0]

        def share() -> Tensor:
            with replaced_vectors(base, tokens, vector):
                features = family.condition(ids).features[places.to(base.device)]
            return ((features @ rows.T.to(features)).square().sum(1) / features.square().sum(1)).mean()

        with torch.no_grad():
            before = share().item()
        for _ in range(settings.steps):
            optimizer.zero_grad()
            (-share()).backward()
            optimizer.step()
        with torch.no_grad():
            after = share().item()
    return TokenInSlot(slot, before, after, float(vector.detach().norm() / start.norm()))


def token_slots(settings: TokenSlotSettings, slots: Sequence[int] | None = None) -> dict[str, object]:
    """Measure slots, all unless some are named: a row for each, and their means."""
    base = load_base(settings.base)
    rows = [token_in_slot(base, settings, slot) for slot in (range(settings.slots) if slots is None else slots)]
    return {
        "settings": asdict(settings),
        "mean": {name: mean(getattr(row, name) for row in rows) for name in ("before", "after", "length")},
        "slots": [asdict(row) for row in rows],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: every slot, for a token of some class words."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/token-slots.json"))
    parser.add_argument("--class-words", nargs="+", default=["person"])
    parser.add_argument("--steps", type=int, default=TokenSlotSettings.steps)
    options = parser.parse_args(arguments)
    settings = TokenSlotSettings(steps=options.steps)
    rows = [token_slots(replace(settings, class_word=word)) for word in options.class_words]
    write_json(options.output, {"machine": machine(), "class_words": rows})
    sys.stdout.write(f"{options.output}\n")


if __name__ == "__main__":
    main()
