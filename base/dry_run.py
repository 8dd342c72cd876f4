"""What a dry run says: headed lines for people, or the same as values for programs (``--json``).

In: facts as they are found. Out: standard output.
"""

from typing import Any

from synclones.base.output import print_json, wants_json
from synclones.base.units import format_dollars, format_duration, format_rate


class DryRun:
    """Collects what a command would do; `print` says it."""

    def __init__(self, command: str):
        self._lines: list[str] = []
        self.values: dict[str, Any] = {"command": command}

    def line(self, heading: str, text: str, **values: Any) -> None:
        """Add a line, of text alone where the heading is empty, and what it says as JSON values."""
        self._lines.append(f"{heading:<10} {text}" if heading else text)
        self.values |= values

    def rate(self, per_second: float, unit: str, text: str) -> None:
        """Add a measured rate."""
        self.line("rate", f"{format_rate(per_second)} {unit}/s {text}", rate_per_s=per_second, unit=unit)

    def time(self, seconds: float, price_per_hour: float, processes: int = 1, shared: bool = False) -> None:
        """Add time and cost.

        Args:
            seconds: of all processes together, at the measured rate.
            price_per_hour: dollars of one process; 0 says nothing.
            processes: how many take that time.
            shared: whether more processes would divide it.
        """
        many = f" with one process, {format_duration(seconds / 8)} with eight" if shared else ""
        self.line("time", format_duration(seconds) + many, seconds=seconds)
        if price_per_hour:
            dollars = seconds / 3600 * price_per_hour * processes
            each = f"{price_per_hour:g} dollars per hour{'' if shared else ' and process'}"
            self.line("cost", f"{format_dollars(dollars)} at {each}", dollars=dollars)

    def print(self) -> None:
        """Print it."""
        if wants_json():
            print_json(self.values)
        else:
            print("\n".join(self._lines))
