"""Algorithms that merge the changes of one weight. A new algorithm is one class and one line in ``ALGORITHMS``."""

from collections.abc import Mapping

from orthoplex.errors import ConfigurationError
from orthoplex.merging.algorithms.algorithm import Algorithm, Part, WeightChanges
from orthoplex.merging.algorithms.constrained import CustomDiffusion
from orthoplex.merging.algorithms.contrastive import Loraclr
from orthoplex.merging.algorithms.data_aware import LeastSquares, SubspaceRouter
from orthoplex.merging.algorithms.linear import Mean, Sum
from orthoplex.merging.algorithms.sparse import Dare, DareTies, Ties
from orthoplex.merging.algorithms.spectral import IsotropicSum, KnotsTies, Svd, TaskSingularVectors

ALGORITHMS: dict[str, type[Algorithm]] = {
    "sum": Sum,
    "mean": Mean,
    "ties": Ties,
    "dare": Dare,
    "dare-ties": DareTies,
    "svd": Svd,
    "tsv": TaskSingularVectors,
    "iso-c": IsotropicSum,
    "knots-ties": KnotsTies,
    "least-squares": LeastSquares,
    "ssr": SubspaceRouter,
    "custom-diffusion": CustomDiffusion,
    "loraclr": Loraclr,
}


def create_algorithm(name: str, options: Mapping[str, object] | None = None) -> Algorithm:
    """Build an algorithm from its name and plain option values.

    Raises:
        ConfigurationError: For an unknown name or option (names the nearest), or a value that is not allowed.
    """
    if name not in ALGORITHMS:
        raise ConfigurationError(f"merging algorithm is {name!r}; allowed are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name].from_options(name, options or {})


__all__ = ["ALGORITHMS", "Algorithm", "Part", "WeightChanges", "create_algorithm"]
