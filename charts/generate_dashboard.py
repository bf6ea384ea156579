"""Writes the chart's Grafana dashboard; with `--check` only tells whether it is current.

What it shows stands in `dashboard_panels.py`; what Grafana wants to know besides is the same for all panels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dashboard_panels import ROWS, Panel

FILE = Path(__file__).with_name("tutelage") / "files" / "dashboard.json"

SCHEMA_VERSION = 41
"""Of Grafana 11.6 and 12; newer ones bring it up to date by themselves."""

COLUMNS, ACROSS, HEIGHT = 24, 3, 7
"""Grafana's grid, how many panels stand beside each other, and how high each is."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel_model(panel: Panel, number: int, place: int, top: int) -> dict[str, Any]:
    """Grafana's model of a panel that is the one at `place` of its row, whose first panels begin at the line `top`."""
    width = COLUMNS // ACROSS
    position = {"h": HEIGHT, "w": width, "x": place % ACROSS * width, "y": top + place // ACROSS * HEIGHT}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": query.expanded, "legendFormat": query.legend}
            for i, query in enumerate(panel.queries)
        ],
    }


def panels() -> list[dict[str, Any]]:
    """All rows, and their panels below them."""
    found: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        heading = {"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place}
        found.append({**heading, "panels": []})
        for place_in_row, panel in enumerate(row.panels):
            found.append(panel_model(panel, len(found) + 1, place_in_row, top + 1))
        top += 1 + -(-len(row.panels) // ACROSS) * HEIGHT
    return found


def variables() -> list[dict[str, Any]]:
    """What can be chosen above the dashboard: where the metrics lie, and of which namespace."""
    namespaces = "label_values(tutelage_health_dependency_up, namespace)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "label": "Namespace",
            "type": "query",
            "datasource": SOURCE,
            "definition": namespaces,
            "query": {"query": namespaces, "refId": "namespaces"},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        },
    ]


def render() -> str:
    """Text of the dashboard's file."""
    dashboard = {
        "title": "Tutelage",
        "uid": "tutelage",
        "description": "The loop of a fleet, and the services that teach it.",
        "tags": ["tutelage"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": variables()},
        "annotations": {"list": []},
        "panels": panels(),
    }
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found the file out of date."""
    if "--check" not in arguments:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(render(), encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == render():
        return 0
    print("the dashboard is out of date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
