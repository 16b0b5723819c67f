"""Many concepts -> one change per weight. A new algorithm is one function and one line in ``ALGORITHMS``."""

from orthoplex.merging.algorithms import ALGORITHMS, Algorithm, Parts
from orthoplex.merging.merge import Merge, check_options, merge

__all__ = ["ALGORITHMS", "Algorithm", "Merge", "Parts", "check_options", "merge"]
