"""Figures with what they are worth: 90 % intervals, resampled over people where several pictures show the same one.

Legend: N pictures, P people, R resamples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweep.evaluation.intervals import rate_interval

NUM_RESAMPLES = 1000
Figure = dict[str, Any]


def share(hits_N: Tensor) -> Figure:
    """A share with its Wilson interval; one picture per person, or it is too narrow."""
    interval = rate_interval(int(hits_N.sum()), len(hits_N))
    return _figure(float(hits_N.float().mean()), interval.low, interval.high, len(hits_N), 4)


def accuracy(found_N: Tensor, shown_N: Tensor) -> Figure:
    """The share of right answers; beside it their mean over the values shown, and the share of the commonest value.

    Always giving the commonest answer has that last share for accuracy, and 1 / number of values when balanced.
    """
    hits_N = found_N == shown_N
    values, counts = shown_N.unique(return_counts=True)
    per_value = torch.stack([hits_N[shown_N == value].float().mean() for value in values])
    beside = {"balanced": float(per_value.mean()), "majority": float(counts.max()) / len(shown_N)}
    return share(hits_N) | {name: round(value, 4) for name, value in beside.items()}


def mean(values_N: Tensor, group_N: Tensor | None = None, digits: int = 3) -> Figure:
    """A mean with its bootstrap interval over groups (whose picture it is, say); None = each value is one."""
    group_N = torch.arange(len(values_N)) if group_N is None else group_N
    num = int(group_N.max()) + 1
    sums_G = torch.zeros(num, dtype=torch.double).index_add_(0, group_N, values_N.double())
    counts_G = torch.bincount(group_N, minlength=num).double()
    weights_RG = resampled(num)
    low, high = _bounds((weights_RG @ sums_G) / (weights_RG @ counts_G))
    return _figure(float(values_N.double().mean()), low, high, len(values_N), digits)


def spread(values_P: Tensor, digits: int = 3) -> Figure:
    """How a figure differs from person to person: median and quartiles."""
    q25, median, q75 = values_P.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.double)).tolist()
    return {"value": round(median, digits), "q25": round(q25, digits), "q75": round(q75, digits), "n": len(values_P)}


def resampled(num: int, num_resamples: int = NUM_RESAMPLES) -> Tensor:
    """How often each of `num` people (or groups) is drawn in each resample, R x P; seeded."""
    picks = torch.randint(num, (num_resamples, num), generator=torch.Generator().manual_seed(0))
    return torch.zeros(num_resamples, num, dtype=torch.double).scatter_add_(1, picks, torch.ones_like(picks).double())


class Verification:
    """Same person or another, from the similarity of all pairs of N pictures.

    A pair counts as often as both of its people are drawn: the pairs share people, so they are not independent.
    """

    def __init__(self, similarity_NN: Tensor, person_N: Tensor) -> None:
        first, second = torch.ones_like(similarity_NN).triu(1).nonzero().T
        similarity, is_same = similarity_NN[first, second].double(), person_N[first] == person_N[second]
        self.num_people = int(person_N.max()) + 1
        self.same, self.same_person = similarity[is_same], person_N[first[is_same]]
        self.other, order = similarity[~is_same].sort()
        self.other_people = person_N[first[~is_same]][order], person_N[second[~is_same]][order]
        # Ties count half (Hanley & McNeil 1982): the mean of what lies below and what does not lie above.
        self._below = torch.searchsorted(self.other, self.same), torch.searchsorted(self.other, self.same, right=True)

    def area_under_curve(self) -> Figure:
        """The chance that a pair of one person is more similar than a pair of two (ROC AUC)."""
        return self._estimate(self._auc, 5)

    def accuracy_at(self, threshold: float) -> Figure:
        """Share of right answers at a threshold that was chosen on others; both kinds of pairs weigh the same."""
        same_hits, other_hits = (self.same > threshold).double(), (self.other <= threshold).double()

        def at(weights_P: Tensor) -> float:
            same, other = self._weights(weights_P)
            return float((same @ same_hits / same.sum() + other @ other_hits / other.sum()) / 2)

        return self._estimate(at, 4)

    def best_threshold(self) -> float:
        """Where `accuracy_at` is highest on these pairs."""
        thresholds = torch.linspace(-1, 1, 401, dtype=torch.double)
        missed = torch.searchsorted(self.same.sort().values, thresholds, right=True) / len(self.same)
        kept_out = torch.searchsorted(self.other, thresholds, right=True) / len(self.other)
        return float(thresholds[(kept_out - missed).argmax()])

    def _auc(self, weights_P: Tensor) -> float:
        same, other = self._weights(weights_P)
        cumulative = torch.cat([torch.zeros(1, dtype=torch.double), other.cumsum(0)])
        below = (cumulative[self._below[0]] + cumulative[self._below[1]]) / 2
        return float(same @ below / (same.sum() * cumulative[-1]))

    def _weights(self, weights_P: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.other_people
        return weights_P[self.same_person], weights_P[first] * weights_P[second]

    def _estimate(self, of_weights: Any, digits: int) -> Figure:
        everybody = torch.ones(self.num_people, dtype=torch.double)
        resamples = torch.tensor([of_weights(w_P) for w_P in resampled(self.num_people)], dtype=torch.double)
        return _figure(of_weights(everybody), *_bounds(resamples), len(self.same), digits)


def _bounds(values_R: Tensor) -> tuple[float, float]:
    low, high = values_R.double().quantile(torch.tensor([0.05, 0.95], dtype=torch.double)).tolist()
    return low, high


def _figure(value: float, low: float | None, high: float | None, num: int, digits: int) -> Figure:
    assert low is not None and high is not None, "figures are made of at least one picture"
    return {"value": round(value, digits), "low": round(low, digits), "high": round(high, digits), "n": num}
