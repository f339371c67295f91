"""comparison.html: one file, nothing loaded from outside, readable by light and in the dark."""

from pathlib import Path

from trialign_ray.chart_style import figures_json
from trialign_ray.checkpoint import write_atomically
from trialign_ray.comparison import words
from trialign_ray.comparison.analysis import Analysis, analyse, compact_rows
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.charts import FAMILY_COLORS, forest, trade_off
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.results import Results
from trialign_ray.html_page import render_page

PAGE = "comparison.html"
_TEMPLATE = Path(__file__).parents[1] / "comparison.html.j2"


def write_page(source: Results | Analysis, root: Path) -> Path:
    """Writes the page into `root`; returns its path. Raises: DataError."""
    analysis = analyse(source)
    html = render_page(
        _TEMPLATE,
        analysis=analysis,
        facts=words.facts(analysis),
        words=words,
        ours=OURS,
        behaviour=BEHAVIOUR,
        colors=FAMILY_COLORS,
        charts=_charts(analysis),
        compact=compact_rows(analysis, analysis.secondary),
    )
    write_atomically(root / PAGE, html.encode())
    return root / PAGE


def _charts(analysis: Analysis) -> dict[str, str]:
    """Figures as JSON by the id of their place: kind and number of the section."""
    figures = {}
    for i, section in enumerate((*analysis.main, *analysis.secondary)):
        if any(row.style for row in section.rows):
            figures[f"trade-{i}"] = trade_off(section)
        if any(row.versus for row in section.rows):
            figures[f"forest-{i}"] = forest(section.rows)
        if any(row.versus for row in section.ablations):
            figures[f"ablations-{i}"] = forest(section.ablations)
    return figures_json(figures)
