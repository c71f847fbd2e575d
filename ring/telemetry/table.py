"""The table of metrics: what each tells, and where its number is read.

`node` hands `readings` to `ring.api.metrics`, which makes the page of `/metrics`; docs/reference/make.py
makes the reference and the dashboard of `METRICS`. Names are public: they are added, never changed.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, get_args

from ring import __version__, logs
from ring.api.app import NodeState
from ring.api.metrics import Metric, Reading, Value
from ring.cluster.lease import Standing
from ring.protocol.codes import ErrorCode
from ring.protocol.names import SLOTS
from ring.telemetry.numbers import Telemetry

Row = tuple[Metric, Callable[[Telemetry], Value]]

_LACKS = ("redis", *(standing for standing in get_args(Standing) if standing != "held"))


class _Group:
    """Rows that belong together: (name without `ring_`, help, reader, labels)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def counter(self, name: str, text: str, read: Callable[[Telemetry], Value], *labels: str) -> Row:
        return self._row("counter", name, text, read, labels)

    def gauge(self, name: str, text: str, read: Callable[[Telemetry], Value], *labels: str) -> Row:
        return self._row("gauge", name, text, read, labels)

    def histogram(self, name: str, text: str, read: Callable[[Telemetry], Value]) -> Row:
        return self._row("histogram", name, text, read, ())

    def _row(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        text: str,
        read: Callable[[Telemetry], Value],
        labels: tuple[str, ...],
    ) -> Row:
        return Metric(f"ring_{name}", kind, text, labels, self.name), read


def _by_code(counts: Mapping[ErrorCode, int]) -> Value:
    # All of them, also those that have not come yet: rate() would overlook the first that does.
    return {(code.value,): counts.get(code, 0) for code in ErrorCode}


def _one_of(values: Iterable[str], true: Iterable[str]) -> Value:
    return {(value,): float(value in true) for value in values}


clients, messages, stored, rooms, ring, links, pump, redis = map(
    _Group, ("clients", "messages", "stored", "rooms", "ring", "links", "pump", "redis")
)

_TABLE: tuple[Row, ...] = (
    clients.gauge(
        "connections",
        "connections at the clients' listener now, those in the handshake included",
        lambda t: 0 if t.edge is None else t.edge.connections,
    ),
    clients.counter(
        "connections_opened_total", "WebSockets of clients that were opened", lambda t: t.census.opened
    ),
    clients.counter(
        "connections_closed_total",
        "WebSockets of clients that ended, by close code: 1006 broke, "
        "1005 gave no code, `other` is none of the protocol's",
        Telemetry.closed,
        "code",
    ),
    clients.counter(
        "handshakes_refused_total",
        "clients that were not let in, by error code",
        lambda t: _by_code(t.refused()),
        "code",
    ),
    clients.gauge(
        "sessions",
        "sessions here now, by where their user's owner is: `here`, or `elsewhere` (which costs a hop)",
        lambda t: dict(zip((("here",), ("elsewhere",)), t.sessions(), strict=True)),
        "owner",
    ),
    clients.gauge("users", "users who have a session here now", Telemetry.users),
    clients.counter(
        "client_errors_total",
        "`error` frames sent to clients, by code",
        lambda t: _by_code(t.census.errors),
        "code",
    ),
    messages.counter(
        "messages_accepted_total",
        "direct messages of sessions here that were taken: `tracked` (with a receipt) or `untracked`",
        lambda t: {("tracked",): t.node.router.tracked, ("untracked",): t.node.router.untracked},
        "kind",
    ),
    messages.counter(
        "receipts_total",
        "receipts told to sessions here, by status, by who acknowledged (`by`), by error code",
        Telemetry.receipts,
        "status",
        "by",
        "code",
    ),
    messages.counter(
        "messages_delivered_total",
        "direct messages passed to sessions here, a copy each",
        lambda t: t.census.delivered,
    ),
    messages.counter(
        "messages_dropped_total",
        "untracked messages that found nobody, or a session or link that was too far behind",
        lambda t: t.node.mailboxes.dropped_untracked,
    ),
    messages.counter(
        "messages_resent_total",
        "times that a message went to an owner again, since it had not answered",
        lambda t: t.node.router.resent,
    ),
    messages.gauge(
        "messages_pending",
        "messages of sessions here that have no receipt yet",
        lambda t: len(t.node.pending),
    ),
    messages.gauge(
        "messages_unacknowledged",
        "messages in the mailboxes here that nobody has acknowledged yet, also if Redis has them too",
        Telemetry.unacknowledged,
    ),
    messages.gauge(
        "mailboxes",
        "mailboxes here: of users whom this node owns, while they have sessions, messages, or "
        "fates that are remembered",
        lambda t: len(t.node.mailboxes.boxes),
    ),
    messages.counter(
        "late_deliveries_total",
        "messages from a node that owned the user no longer; they come again from the new one",
        lambda t: t.node.attachments.late_deliveries,
    ),
    messages.counter(
        "mailboxes_lost_total",
        "mailboxes with messages whose new owner could not be reached; the senders' nodes send again",
        lambda t: t.node.transition.lost_mailboxes,
    ),
    stored.counter(
        "stored_messages_total",
        "messages that were stored in Redis for a recipient who was away, or did not acknowledge",
        lambda t: t.spilled("stored"),
    ),
    stored.counter(
        "stored_failed_total",
        "messages that could not be stored, by reason: the mailbox is `full`, Redis is `away`, it `refused` "
        "with an error, or too few replicas or disks had it in time (`unsafe`)",
        Telemetry.unstored,
        "reason",
    ),
    stored.counter(
        "stored_fenced_total",
        "messages that Redis did not take, since another node had owned their slot since; they are tried "
        "again or handed over",
        lambda t: t.spilled("fenced"),
    ),
    stored.counter(
        "stored_reads_total",
        "pages of stored mailboxes that were read, empty ones included: at least one for a user who comes",
        lambda t: t.spilled("reads"),
    ),
    stored.counter(
        "stored_messages_read_total",
        "messages on these pages",
        lambda t: t.spilled("read_letters"),
    ),
    stored.counter(
        "stored_messages_removed_total",
        "messages that Redis was told to forget, since they had been acknowledged",
        lambda t: t.spilled("removed"),
    ),
    stored.gauge(
        "stored_waiting",
        "mailboxes that wait for Redis: to be stored, to be read, or to be rid of what was acknowledged",
        lambda t: t.spilled("waiting"),
    ),
    stored.counter(
        "stored_unread_sessions_total",
        "sessions that were served while Redis was away, without what it keeps; that comes later, behind "
        "newer messages",
        lambda t: t.node.mailboxes.late_sessions,
    ),
    rooms.gauge(
        "rooms",
        "rooms that sessions here are in, or about to be",
        lambda t: len(t.node.rooms.rooms),
    ),
    rooms.gauge("room_members", "memberships of sessions here", lambda t: t.node.rooms.memberships),
    rooms.gauge(
        "room_subscriptions",
        "rooms whose subscription at Redis stands",
        lambda t: t.node.rooms.standing,
    ),
    rooms.counter(
        "room_published_total",
        "publishes of sessions here, by outcome: `ok`, `rooms_unavailable` (not "
        "published), `unknown` (Redis did not answer), `refused` (Redis answered an error), `busy` (too "
        "much at once)",
        lambda t: {(label,): count for label, count in t.node.rooms.publisher.outcomes.items()},
        "outcome",
    ),
    rooms.gauge(
        "room_publish_queued_bytes",
        "publishes that Redis has not answered yet",
        lambda t: t.node.rooms.publisher.queued_bytes,
    ),
    rooms.counter(
        "room_copies_total",
        "messages of rooms handed to sessions here, a copy each",
        lambda t: t.node.rooms.copies,
    ),
    rooms.counter(
        "room_dropped_total",
        "messages and copies of rooms that were dropped: for a `slow_member`, for a "
        "`slow_node` (this one), or since they were `undecodable`",
        lambda t: {(label,): count for label, count in t.node.rooms.dropped.items()},
        "reason",
    ),
    rooms.counter(
        "room_gaps_total",
        "times that a member was told that messages of a room may be missing",
        lambda t: t.node.rooms.gaps_told,
    ),
    ring.gauge("epoch", "epoch of the ring that the node routes by", Telemetry.epoch),
    ring.counter("changes_total", "epochs that the node has entered", lambda t: t.ring_changes),
    ring.gauge("members", "nodes in the ring, draining ones included", Telemetry.members),
    ring.counter(
        "suspicions_total",
        "times that this node took another for dead: which was `evicted` then, or `refuted` it",
        lambda t: {("evicted",): t.node.deaths.evicted, ("refuted",): t.node.deaths.refuted},
        "outcome",
    ),
    ring.gauge("slots_owned", f"slots that the node owns, of {SLOTS}", Telemetry.slots),
    ring.gauge("share_ratio", "the same as a part of the whole", lambda t: t.slots() / SLOTS),
    ring.gauge(
        "node_state",
        "1 for the state that the node is in",
        lambda t: _one_of(get_args(NodeState), [t.node.state]),
        "state",
    ),
    ring.gauge(
        "degraded",
        "1 for what the node has to do without (`redis`), and for how its lease stands if it is not held",
        lambda t: _one_of(_LACKS, t.node.degraded if t.store else ()),
        "what",
    ),
    ring.gauge(
        "lease_age_seconds",
        "time since the lease was renewed",
        lambda t: 0 if t.membership is None else t.membership.lease_age_s,
    ),
    ring.gauge(
        "lease_ttl_seconds", "how long a lease lasts that is not renewed", lambda t: t.node.settings.ttl_s
    ),
    ring.gauge(
        "build_info",
        "always 1; the release, Python's, and which node of which cluster this is",
        lambda t: {(__version__, platform.python_version(), t.node.settings.cluster, t.node.name): 1},
        "version",
        "python",
        "cluster",
        "node",
    ),
    ring.counter(
        "log_lines_dropped_total",
        "lines of the log that were dropped, since nobody read them in time",
        lambda t: logs.dropped(),
    ),
    links.gauge(
        "peers",
        "other members, by the state of the link to them: `up`, or what became of the last dial; "
        "`none` where the other side dials, or nothing is known yet",
        Telemetry.linkage,
        "state",
    ),
    links.gauge("link_up", "1 where there is a link", lambda t: t.linked(lambda _: 1), "peer"),
    links.gauge(
        "link_busy",
        "1 where so much is queued that new messages get `busy`",
        lambda t: t.linked(lambda link: link.busy),
        "peer",
    ),
    links.gauge(
        "link_queued_bytes",
        "what waits to be sent on the link",
        lambda t: t.linked(lambda link: link.queued_bytes),
        "peer",
    ),
    links.counter(
        "link_frames_total",
        "frames on the link, each a batch",
        lambda t: t.carried("frames"),
        "peer",
        "direction",
    ),
    links.counter(
        "link_items_total",
        "items in them: messages, acknowledgements, receipts and the like",
        lambda t: t.carried("items"),
        "peer",
        "direction",
    ),
    links.counter(
        "link_bytes_total", "bytes of the frames", lambda t: t.carried("bytes"), "peer", "direction"
    ),
    pump.gauge("pump_connections", "WebSockets now, of clients and peers", lambda t: t.node.pump.connections),
    pump.counter("pump_ticks_total", "times that the pump woke up", lambda t: t.node.pump.ticks),
    pump.counter(
        "pump_busy_seconds_total",
        "time spent in ticks; near 1 per second the node is full",
        lambda t: t.node.pump.timing.busy_s,
    ),
    pump.histogram(
        "pump_tick_seconds", "how long a tick takes: everything else waits for its end", Telemetry.tick_times
    ),
    pump.counter("pump_events_total", "times that a socket was found ready", lambda t: t.node.pump.events),
    pump.counter(
        "pump_messages_in_total",
        "messages and control frames received, of clients and peers",
        lambda t: t.node.pump.messages_in,
    ),
    pump.counter(
        "pump_bytes_total",
        "bytes read and written, of clients and peers",
        lambda t: {("in",): t.node.pump.bytes_in, ("out",): t.node.pump.bytes_out},
        "direction",
    ),
    pump.gauge("loop_lag_seconds", "how late the last timer fired", lambda t: t.node.pump.timing.lag_s),
    pump.gauge(
        "loop_lag_max_seconds",
        "how late one fired at worst, in the last one to two minutes",
        lambda t: t.node.pump.greatest_lag_s,
    ),
    redis.gauge(
        "redis_connected",
        "1 while the connection stands: that of `commands`, of stored `mailboxes` where there are any, or of "
        "`rooms`",
        lambda t: {(use,): store.connected for use, store in t.store.items()},
        "use",
    ),
    redis.counter(
        "redis_reconnects_total",
        "times that it was made again after it broke",
        lambda t: {(use,): max(0, store.connections_made - 1) for use, store in t.store.items()},
        "use",
    ),
)

METRICS = tuple(metric for metric, _ in _TABLE)
"""All metrics, in the order of the page."""


def readings(telemetry: Telemetry) -> Iterator[Reading]:
    """Every metric of the table, as it is now."""
    for metric, read in _TABLE:
        yield metric, read(telemetry)
