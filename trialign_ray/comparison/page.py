"""comparison.html: one file, nothing loaded from outside, readable by light and in the dark."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

import trialign_ray
from trialign_ray.checkpoint import write_atomically
from trialign_ray.comparison import words
from trialign_ray.comparison.analysis import Analysis, analyse, compact_rows
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.charts import FAMILY_COLORS, forest, trade_off
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.results import Results

PAGE = "comparison.html"
_TEMPLATE = "comparison.html.j2"


def write_page(source: Results | Analysis, root: Path) -> Path:
    """Writes the page into `root`; returns its path. Raises: DataError."""
    analysis = analyse(source)
    environment = Environment(
        loader=FileSystemLoader(Path(trialign_ray.__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(_TEMPLATE).render(
        analysis=analysis,
        facts=words.facts(analysis),
        words=words,
        ours=OURS,
        behaviour=BEHAVIOUR,
        colors=FAMILY_COLORS,
        charts=_charts(analysis),
        compact=compact_rows(analysis, analysis.secondary),
        plotly_js=get_plotlyjs(),
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
    return {name: figure.to_json() or "" for name, figure in figures.items()}
