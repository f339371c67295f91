"""Pages of one file that load nothing from outside."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from trialign_ray.chart_style import INK


def render_page(template: Path, **content: Any) -> str:
    """The page as HTML; all content is escaped.

    Beside its content a template has Plotly's code as `plotly_js`, and as `chart_ink` the colour
    that stands for the page's own. It may include page_style.j2, and page_charts.j2, which draws
    `charts` at the places of their names, by light and in the dark.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    given = {"plotly_js": get_plotlyjs(), "chart_ink": INK}
    return environment.get_template(template.name).render(given | content)
