"""What a step costs by its rows, as measured at the start on this machine."""

from bisect import bisect_left
from itertools import accumulate


class StepCosts:
    """Seconds of a step by rows, interpolated between those that were measured.

    Args:
        measured: seconds by rows, at least one entry.
    """

    def __init__(self, measured: dict[int, float]) -> None:
        self._rows = sorted(measured)
        # Noise only adds time, and fewer rows take no longer than more.
        shortest = accumulate((measured[rows] for rows in reversed(self._rows)), min)
        self._seconds = [max(seconds, 1e-9) for seconds in shortest][::-1]

    @property
    def most_rows(self) -> int:
        """The most rows of a step with drafts."""
        return self._rows[-1]

    def seconds(self, rows: int) -> float:
        """Return the seconds of a step; above the most rows they grow in proportion."""
        if rows >= self._rows[-1]:
            return self._seconds[-1] * rows / self._rows[-1]
        if rows <= self._rows[0]:
            return self._seconds[0]
        high = bisect_left(self._rows, rows)
        share = (rows - self._rows[high - 1]) / (self._rows[high] - self._rows[high - 1])
        low_seconds = self._seconds[high - 1]
        return low_seconds + share * (self._seconds[high] - low_seconds)

    def summary(self) -> str:
        """Return the measured times, for the start-up table."""
        pairs = zip(self._rows, self._seconds, strict=True)
        return ", ".join(f"{rows} rows {seconds * 1e3:.2f} ms" for rows, seconds in pairs)
