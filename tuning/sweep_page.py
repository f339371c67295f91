"""sweep.html: one file, nothing loaded from outside."""

from pathlib import Path

from trialign_ray.chart_style import figures_json
from trialign_ray.html_page import render_page
from tuning.sweep_charts import parallel_chart, tradeoff_chart, volume_chart
from tuning.sweep_plan import OBJECTIVES
from tuning.sweep_results import finished
from tuning.sweep_summary import SweepSummary
from tuning.sweep_tables import TITLES, figure, keys_of, reference_words, short_key, shown

_TEMPLATE = Path(__file__).parent / "sweep.html.j2"


def sweep_page(summary: SweepSummary) -> str:
    """The page as HTML; a sweep without a finished trial has no charts."""
    charts = {}
    if finished(summary.records):
        charts = {
            "tradeoff": tradeoff_chart(summary),
            "parallel": parallel_chart(summary),
            "volume": volume_chart(summary),
        }
    front = {summary.records[i].trial_id for i in summary.pareto}
    keys = keys_of(summary)
    return render_page(
        _TEMPLATE,
        run_name=summary.root.name,
        summary=summary,
        reference=reference_words(),
        objectives=OBJECTIVES,
        titles=TITLES,
        figure=figure,
        num_finished=len(finished(summary.records)),
        keys=[(key, short_key(key)) for key in keys],
        rows=[
            (r, [shown(r.params.get(key)) for key in keys], r.trial_id in front)
            for r in sorted(summary.records, key=lambda r: -r.metrics.get("worst_truth", -1.0))
        ],
        space=summary.space.lines(),
        charts=figures_json(charts),
    )
