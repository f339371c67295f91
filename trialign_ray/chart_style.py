"""How the charts of every page look: colours, font, margins, interval bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

INK, TEAL, RUST, GREY, PALE = "#1d2733", "#1f7a8c", "#c2703d", "#8a94a6", "#d9dde3"


def styled(figure: go.Figure, height_px: int, **differently: Any) -> go.Figure:
    """The figure itself, in the style of the pages: transparent, legend above, room for labels.

    Args: differently: entries of Plotly's layout that this chart has otherwise.
    """
    layout: dict[str, Any] = {
        "template": "plotly_white",
        "height": height_px,
        "margin": {"l": 10, "r": 20, "t": 40, "b": 10},
        "font": {"family": "Inter, system-ui, sans-serif", "size": 13, "color": INK},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    figure.update_layout(**(layout | differently))
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def interval_bars(
    values: Sequence[float], intervals: Sequence[Sequence[float]], color: str, **bars: Any
) -> dict[str, Any]:
    """Plotly's error bars from each value to both ends of its interval (low, high).

    Args: bars: thickness and width, in pixels.
    """
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - v for v, (_, high) in zip(values, intervals, strict=True)],
        "arrayminus": [v - low for v, (low, _) in zip(values, intervals, strict=True)],
        "color": color,
        **bars,
    }


def figures_json(figures: Mapping[str, go.Figure]) -> dict[str, str]:
    """Figures by name as a page takes them in: Plotly's JSON."""
    return {name: figure.to_json() or "" for name, figure in figures.items()}
