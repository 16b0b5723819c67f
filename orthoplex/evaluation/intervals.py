"""Confidence intervals of means over concepts and seeds, by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orthoplex.errors import ConfigurationError


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds its bootstrap draws fall between."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As tables show it: the estimate and, in brackets, the bounds where draws differ."""
        if self.low == self.high:  # of one concept and seed, or where all have the same
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def bootstrap(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over concepts and seeds, both drawn with replacement, independently of each other.

    `values[c, s]` is what was measured for concept c with training seed s. One draw takes `concepts` rows and `seeds`
    columns with replacement and applies the statistic to the block: the interval covers new concepts and new seeds.
    Draws for which the statistic is not a number are left out.

    Args:
        values: `(concepts, seeds)` or `(concepts, seeds, k)`.
        statistic: Maps blocks shaped as `values`, `(draws, concepts, seeds, ...)`, to `(draws,)`.
        level: Share of the draws between the bounds, in (0, 1).
        draws: Number of draws, at least 1.
        seed: Of the draws.

    Raises:
        ConfigurationError: for no values, fewer than two dimensions, or a level or number of draws out of range.

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007, section 3.
    """
    if values.ndim < 2 or values.numel() == 0:
        raise ConfigurationError(
            f"bootstrap values have the shape {tuple(values.shape)}; allowed: (concepts, seeds, ...)"
        )
    _check_draws(level, draws)
    generator = torch.Generator().manual_seed(seed)
    concepts, seeds = values.shape[:2]
    rows = torch.randint(concepts, (draws, concepts, 1), generator=generator)
    columns = torch.randint(seeds, (draws, 1, seeds), generator=generator)
    drawn = statistic(values.double()[rows, columns])
    return _percentiles(float(statistic(values.double()[None])[0]), drawn, level)


def _check_draws(level: float, draws: int) -> None:
    if not 0.0 < level < 1.0 or draws < 1:
        raise ConfigurationError(f"bootstrap level is {level} and draws {draws}; allowed: 0 < level < 1, draws >= 1")


def _percentiles(value: float, drawn: Tensor, level: float) -> Interval:
    """An estimate with the bounds of what was drawn, `(draws,)`; draws that are not a number are left out."""
    tail = (1.0 - level) / 2.0
    bounds = torch.nanquantile(drawn, torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return Interval(value, float(bounds[0]), float(bounds[1]))


def mean_interval(values: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Bootstrap interval of the mean of `(concepts, seeds)` values (see `bootstrap`)."""
    return bootstrap(values, lambda block: block.mean(dim=(1, 2)), level=level, draws=draws, seed=seed)


def retention_interval(
    single: Tensor, merged: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap interval of `mean(merged) / mean(single)`, concept and seed drawn together for both.

    The ratio of means, unlike the mean of ratios, does not let one concept that failed alone decide.

    Draws whose mean of `single` is not positive have no ratio and are left out.

    Args:
        single: `(concepts, seeds)`, the concept alone.
        merged: `(concepts, seeds)`, in the merge.
        level: See `bootstrap`.
        draws: See `bootstrap`.
        seed: See `bootstrap`.

    Raises:
        ConfigurationError: when the shapes differ, or the mean of `single` is not positive.
    """
    if single.shape != merged.shape:
        raise ConfigurationError(
            f"single is {tuple(single.shape)}, merged {tuple(merged.shape)}; allowed: equal shapes"
        )
    if not float(single.double().mean()) > 0.0:
        raise ConfigurationError(f"the mean of single is {float(single.double().mean())}; allowed: larger than 0")
    pairs = torch.stack([single.double(), merged.double()], dim=-1)

    def ratio(block: Tensor) -> Tensor:
        means = block.mean(dim=(1, 2))
        return torch.where(means[:, 0] > 0.0, means[:, 1] / means[:, 0], torch.nan)

    return bootstrap(pairs, ratio, level=level, draws=draws, seed=seed)


def crossed_interval(
    values: Tensor,
    owners: Sequence[Sequence[str]],
    kinds: Sequence[str],
    *,
    per: Tensor | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean over combinations of concepts, which share concepts and so depend on each other.

    With `per` it is that of `mean(values) / mean(per)`, both drawn together; draws whose mean of `per` is not positive
    have no ratio and are left out.

    One draw takes the concepts of every kind with replacement, and seeds; a combination counts as often as the product
    of how often its concepts were drawn. Draws that no combination is in are left out.

    Args:
        values: `(combinations, seeds)`.
        owners: Names of each combination's concepts, as many as there are kinds.
        kinds: The kind of each place; places of one kind draw from the same concepts.
        per: `(combinations, seeds)`; None for the mean itself.
        level: See `bootstrap`.
        draws: See `bootstrap`.
        seed: See `bootstrap`.

    Raises:
        ConfigurationError: when there are no values, not one row for every combination, the mean of `per` is not
            positive, or a level or number of draws is out of range.

    Source: see `bootstrap`.
    """
    if values.ndim != 2 or values.numel() == 0 or len(values) != len(owners):
        raise ConfigurationError(
            f"crossed values have the shape {tuple(values.shape)} for {len(owners)} combinations; "
            "allowed: (combinations, seeds), 1 or more"
        )
    if per is not None and (per.shape != values.shape or not float(per.double().mean()) > 0.0):
        raise ConfigurationError(
            f"per has the shape {tuple(per.shape)} and the mean {float(per.double().mean())}; allowed: "
            f"{tuple(values.shape)} and a mean larger than 0"
        )
    _check_draws(level, draws)
    generator = torch.Generator().manual_seed(seed)
    weights = _crossed_weights(owners, kinds, draws, generator)
    columns = torch.randint(values.shape[1], (draws, values.shape[1]), generator=generator)

    def weighed(table: Tensor) -> Tensor:
        return (weights * table.double()[:, columns].mean(2).T).sum(1)

    value, drawn = float(values.double().mean()), weighed(values)
    if per is None:
        return _percentiles(value, drawn / weights.sum(1), level)  # 0 / 0: none
    below = weighed(per)
    ratios = torch.where(below > 0.0, drawn / below, torch.nan)
    return _percentiles(value / float(per.double().mean()), ratios, level)


def _crossed_weights(
    owners: Sequence[Sequence[str]], kinds: Sequence[str], draws: int, generator: torch.Generator
) -> Tensor:
    """How often each combination counts in each draw, `(draws, combinations)`."""
    counts: dict[tuple[str, str], Tensor] = {}
    for kind in dict.fromkeys(kinds):
        names = sorted({name for row in owners for name, place in zip(row, kinds, strict=True) if place == kind})
        drawn = torch.randint(len(names), (draws, len(names)), generator=generator)
        for index, name in enumerate(names):
            counts[kind, name] = (drawn == index).sum(1).double()
    return torch.stack(
        [torch.stack([counts[kind, name] for name, kind in zip(row, kinds, strict=True)]).prod(0) for row in owners],
        dim=1,
    )
