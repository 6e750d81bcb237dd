"""Pairing rows with columns so that the sum of their values is greatest, exactly, in numpy.

scipy has this too, but the device side has no scipy; and here nearly every row sees one column only, which the split
into independent groups makes cheap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(values: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, for the greatest sum over all pairs.

    Args:
        values: (R, C), at least 0.
        least: pairs of a smaller value are not allowed; a row or column may stay alone.

    Returns:
        (row, column) of each pair, in the order of the rows.
    """
    allowed = values >= least
    alone = allowed & (allowed.sum(axis=1, keepdims=True) == 1) & (allowed.sum(axis=0) == 1)
    pairs: list[tuple[int, int]] = [(int(row), int(column)) for row, column in np.argwhere(alone)]
    for rows, columns in _groups(allowed & ~alone):
        block = np.where(allowed[np.ix_(rows, columns)], values[np.ix_(rows, columns)], 0.0)
        pairs += [(int(rows[r]), int(columns[c])) for r, c in _hungarian(-block) if block[r, c] > 0]
    return sorted(pair for pair in pairs if allowed[pair])


def _groups(allowed: NDArray[np.bool_]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Split the rows and columns into groups between which no pair is allowed; lone ones are left out."""
    groups = []
    left = np.asarray(allowed.any(axis=1))
    while left.any():
        rows = np.arange(len(allowed)) == np.flatnonzero(left)[0]
        while True:
            columns = allowed[rows].any(axis=0)
            wider = np.asarray(allowed[:, columns].any(axis=1))
            if (wider == rows).all():
                break
            rows = wider
        groups.append((np.flatnonzero(rows), np.flatnonzero(columns)))
        left &= ~rows
    return groups


def _hungarian(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of least total cost, each row or column of the shorter side once.

    Shortest augmenting paths with potentials (Jonker and Volgenant, Computing 38, 1987), a row at a time.
    """
    if cost.shape[0] > cost.shape[1]:
        return [(row, column) for column, row in _hungarian(cost.T)]
    rows, columns = cost.shape
    row_of = np.full(columns + 1, -1)  # of each column; the last column stands for the row that is being placed
    row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
    for row in range(rows):
        row_of[columns] = row
        at = columns
        distance, before = np.full(columns, np.inf), np.full(columns, columns)
        done = np.zeros(columns + 1, bool)
        while row_of[at] >= 0:
            done[at] = True
            here = int(row_of[at])
            reached = cost[here] - row_price[here] - column_price[:columns]
            shorter = ~done[:columns] & (reached < distance)
            distance[shorter], before[shorter] = reached[shorter], at
            following = int(np.where(done[:columns], np.inf, distance).argmin())
            step = distance[following]
            row_price[row_of[done]] += step
            column_price[done] -= step
            distance[~done[:columns]] -= step
            at = following
        while at != columns:
            row_of[at] = row_of[before[at]]
            at = int(before[at])
    return [(int(row_of[column]), column) for column in range(columns) if row_of[column] >= 0]
