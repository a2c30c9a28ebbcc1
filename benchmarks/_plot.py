"""A drawing of ratios: bars with their spread, a line at 1, and a mark where each may end.

Promises: the same ratios give the same bytes.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import Any

from ._figures import Held

__all__ = ["draw"]

_GOOD, _BAD, _INK = "#2a7f62", "#b5533c", "#444444"
_BAR = 0.32  # inches for each


def draw(held: Sequence[Held]) -> str:
    """SVG; the first ratio is at the top.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    matplotlib: Any = importlib.import_module("matplotlib")  # slow, and an extra
    figures: Any = importlib.import_module("matplotlib.figure")
    settings = {"svg.hashsalt": "trioshim", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = figures.Figure(figsize=(8, 1.1 + _BAR * len(held)), layout="constrained")
        _fill(figure.subplots(), held)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def _fill(axes: Any, held: Sequence[Held]) -> None:
    places = range(len(held))
    middles = [each.ratio.middle for each in held]
    below = [each.ratio.middle - each.ratio.low for each in held]
    above = [each.ratio.high - each.ratio.middle for each in held]
    colours = [_GOOD if each.verdict().met else _BAD for each in held]
    # From 1 on: left is better, right is worse.
    lengths = [middle - 1 for middle in middles]
    axes.barh(places, lengths, left=1, color=colours, height=0.6)
    axes.errorbar(middles, places, xerr=[below, above], fmt="none", ecolor=_INK, capsize=3)
    axes.scatter([each.most for each in held], places, marker="|", s=180, color=_INK, zorder=3)
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if _shown(tick, held)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(places, [each.what.replace("`", "") for each in held])
    axes.invert_yaxis()
    axes.set_xlabel(
        "times what Go's runc.v1 takes; left of 1 is better; the mark is what was asked"
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _shown(tick: float, held: Sequence[Held]) -> bool:
    ends = [end for each in held for end in (each.ratio.low, each.ratio.high, each.most)]
    return min(ends, default=1) / 2 <= tick <= max(ends, default=1) * 2
