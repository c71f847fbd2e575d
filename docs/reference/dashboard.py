"""The Grafana dashboard, docs/grafana/ring.json: panels of the metrics that ring/telemetry/table.py has.

A panel names its metrics; what it asks Prometheus follows from their kinds. `make.py` writes the file.
"""

import json
from typing import Any, NamedTuple

from ring.api.metrics import Metric
from ring.telemetry.table import METRICS

SCHEMA = 39
"""Of Grafana's dashboards, since release 10.4; later ones read it."""

_BY_NAME = {metric.name: metric for metric in METRICS}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8


class Query(NamedTuple):
    """What a panel asks, where that is not simply its metrics; `legend` is Grafana's template."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """Title, Grafana's name of the unit, and the metrics (without `ring_`) or queries that it shows."""

    title: str
    unit: str
    shows: tuple[str | Query, ...]


def _of_nodes(name: str) -> str:
    return f'{name}{{instance=~"$node"}}'


def _rate(name: str, *by: str, where: str = "") -> str:
    """How fast a counter grows, by node and these labels."""
    chosen = _of_nodes(name).replace("}", f"{where}}}")
    return f"sum by ({', '.join(('instance', *by))}) (rate({chosen}[$__rate_interval]))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Clients": (
        Panel("Sessions, by where the owner is", "short", ("sessions",)),
        Panel("Users and connections", "short", ("users", "connections")),
        Panel("Connections opened", "ops", ("connections_opened_total",)),
        Panel("Connections ended, by close code", "ops", ("connections_closed_total",)),
        Panel("Handshakes refused", "ops", ("handshakes_refused_total",)),
        Panel("Errors told to clients", "ops", ("client_errors_total",)),
    ),
    "Messages": (
        Panel("Accepted", "ops", ("messages_accepted_total",)),
        Panel("Delivered", "ops", ("messages_delivered_total",)),
        Panel("Receipts", "ops", ("receipts_total",)),
        Panel(
            "Part of the receipts that say failed",
            "percentunit",
            (
                Query(
                    _rate("ring_receipts_total", where=',status="failed"')
                    + " / "
                    + _rate("ring_receipts_total"),
                    "{{instance}}",
                ),
            ),
        ),
        Panel("Under way", "short", ("messages_pending", "messages_unacknowledged")),
        Panel("Mailboxes", "short", ("mailboxes",)),
        Panel("Sent again, and dropped", "ops", ("messages_resent_total", "messages_dropped_total")),
        Panel("Late, and lost", "ops", ("late_deliveries_total", "mailboxes_lost_total")),
    ),
    "Stored": (
        Panel(
            "Stored, read and removed",
            "ops",
            ("stored_messages_total", "stored_messages_read_total", "stored_messages_removed_total"),
        ),
        Panel("Not stored", "ops", ("stored_failed_total", "stored_fenced_total")),
        Panel("Mailboxes that wait for Redis", "short", ("stored_waiting",)),
        Panel("Pages read", "ops", ("stored_reads_total",)),
        Panel("Sessions served without", "ops", ("stored_unread_sessions_total",)),
    ),
    "Ring": (
        Panel("Epoch", "none", ("epoch",)),
        Panel("Changes", "ops", ("changes_total",)),
        Panel("Suspicions", "ops", ("suspicions_total",)),
        Panel("Members", "short", ("members",)),
        Panel("Slots owned", "short", ("slots_owned",)),
        Panel("Share", "percentunit", ("share_ratio",)),
        Panel("Age of the lease, and its length", "s", ("lease_age_seconds", "lease_ttl_seconds")),
        Panel("State", "none", (Query(f"{_of_nodes('ring_node_state')} == 1", "{{instance}} {{state}}"),)),
        Panel("Degraded", "none", (Query(f"{_of_nodes('ring_degraded')} == 1", "{{instance}} {{what}}"),)),
        Panel(
            "Releases",
            "none",
            (Query(f"count by (version) ({_of_nodes('ring_build_info')})", "{{version}}"),),
        ),
    ),
    "Links": (
        Panel("Other members, by the state of the link", "short", ("peers",)),
        Panel("Up", "none", ("link_up",)),
        Panel("Busy", "none", ("link_busy",)),
        Panel("Queued", "bytes", ("link_queued_bytes",)),
        Panel("Frames", "ops", ("link_frames_total",)),
        Panel("Items", "ops", ("link_items_total",)),
        Panel("Bytes", "Bps", ("link_bytes_total",)),
        Panel(
            "Items in a frame",
            "short",
            (
                Query(
                    _rate("ring_link_items_total", "direction")
                    + " / "
                    + _rate("ring_link_frames_total", "direction"),
                    "{{instance}} {{direction}}",
                ),
            ),
        ),
    ),
    "Rooms": (
        Panel("Rooms, and subscriptions that stand", "short", ("rooms", "room_subscriptions")),
        Panel("Memberships", "short", ("room_members",)),
        Panel("Published, by outcome", "ops", ("room_published_total",)),
        Panel("Waits for Redis", "bytes", ("room_publish_queued_bytes",)),
        Panel("Copies", "ops", ("room_copies_total",)),
        Panel("Dropped, and gaps told", "ops", ("room_dropped_total", "room_gaps_total")),
    ),
    "Pump": (
        Panel("Busy: seconds per second", "percentunit", ("pump_busy_seconds_total",)),
        Panel("Time of a tick", "s", ("pump_tick_seconds",)),
        Panel("How late timers fire", "s", ("loop_lag_seconds", "loop_lag_max_seconds")),
        Panel("Ticks and events", "ops", ("pump_ticks_total", "pump_events_total")),
        Panel("Messages and control frames in", "ops", ("pump_messages_in_total",)),
        Panel("Bytes", "Bps", ("pump_bytes_total",)),
        Panel("WebSockets", "short", ("pump_connections",)),
        Panel(
            "CPU of the process",
            "percentunit",
            (Query(f"rate({_of_nodes('process_cpu_seconds_total')}[$__rate_interval])", "{{instance}}"),),
        ),
        Panel(
            "Memory of the process",
            "bytes",
            (Query(_of_nodes("process_resident_memory_bytes"), "{{instance}}"),),
        ),
        Panel(
            "File descriptors",
            "short",
            (
                Query(_of_nodes("process_open_fds"), "{{instance}} open"),
                Query(_of_nodes("process_max_fds"), "{{instance}} at most"),
            ),
        ),
        Panel("Lines of the log dropped", "ops", ("log_lines_dropped_total",)),
    ),
    "Redis": (
        Panel("Connected", "none", ("redis_connected",)),
        Panel("Reconnects", "ops", ("redis_reconnects_total",)),
    ),
}


def queries(panel: Panel) -> list[Query]:
    """What a panel asks Prometheus."""
    found: list[Query] = []
    for shown in panel.shows:
        if isinstance(shown, Query):
            found.append(shown)
        else:
            found.extend(_queries_of(_BY_NAME[f"ring_{shown}"], alone=len(panel.shows) == 1))
    return found


def _queries_of(metric: Metric, *, alone: bool) -> list[Query]:
    legend = " ".join(f"{{{{{label}}}}}" for label in ("instance", *metric.labels))
    if not alone:
        legend += " " + metric.name.removeprefix("ring_").removesuffix("_total").replace("_", " ")
    if metric.kind == "gauge":
        return [Query(_of_nodes(metric.name), legend)]
    if metric.kind == "histogram":
        rate = _rate(f"{metric.name}_bucket", *metric.labels, "le")
        return [
            Query(f"histogram_quantile({quantile}, {rate})", f"{legend} p{quantile * 100:g}")
            for quantile in (0.5, 0.99)
        ]
    # Of the many codes that there are, those that happen.
    seen = " > 0" if {"code", "outcome"} & {*metric.labels} else ""
    return [Query(_rate(metric.name, *metric.labels) + seen, legend)]


def dashboard() -> str:
    """The whole file."""
    content = {
        "title": "Ring",
        "uid": "ring-cluster",
        "tags": ["ring"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                },
                _variable("cluster", "Cluster", "label_values(ring_build_info, cluster)"),
                _variable("node", "Node", 'label_values(ring_build_info{cluster=~"$cluster"}, instance)'),
            ]
        },
        "panels": list(_panels()),
    }
    return json.dumps(content, indent=2) + "\n"


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # with each change of the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
        "hide": 0,
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row, members in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top},
                "panels": [],
            }
        )
        top += 1
        for number, panel in enumerate(members):
            column = number % (_COLUMNS // _WIDTH)
            place = {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": top}
            panels.append(_panel(len(panels) + 1, panel, place))
            if (column + 1) * _WIDTH == _COLUMNS or number == len(members) - 1:
                top += _HEIGHT
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    helps = [
        f"{metric.name}: {metric.help}"
        for shown in panel.shows
        if isinstance(shown, str) and (metric := _BY_NAME[f"ring_{shown}"])
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": "\n\n".join(helps),
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {"lineWidth": 1, "fillOpacity": 5, "showPoints": "never", "spanNulls": False},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "editorMode": "code",
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(queries(panel))
        ],
    }
