"""Where the numbers of a node are read: before it runs, and where reading takes more than a look."""

import weakref
from typing import Any, cast

import pytest

from ring.api.metrics import Value
from ring.config import Settings
from ring.mailbox.letter import Letter
from ring.node import Node
from ring.peers.waiting import Traffic
from ring.protocol.codes import ErrorCode
from ring.telemetry.table import METRICS


class Link:
    """A link, as telemetry sees it."""

    def __init__(self, name: str, frames: int) -> None:
        self.name = name
        self.traffic = Traffic()
        self.busy = True
        self.queued_bytes = 5
        for _ in range(frames):
            self.traffic.sent(2, 10)


@pytest.fixture
def node() -> Node:
    """A node that has been made, and does not run."""
    return Node(Settings(name="n1", cluster="test"))


def readings(node: Node) -> dict[str, Value]:
    """All values, by the metric's name."""
    return {metric.name: value for metric, value in node.readings()}


def labelled(value: Value) -> dict[tuple[str, ...], float]:
    """The values that are not 0, by labels."""
    assert isinstance(value, dict)
    return {labels: number for labels, number in value.items() if number}


def test_a_node_that_does_not_run_yet(node: Node) -> None:
    """Everything can be read: HTTP answers before the node is a member."""
    values = readings(node)
    assert list(values) == [metric.name for metric in METRICS]
    assert labelled(values["ring_node_state"]) == {("joining",): 1}
    assert labelled(values["ring_degraded"]) == {}
    assert (values["ring_epoch"], values["ring_members"], values["ring_slots_owned"]) == (0, 0, 0)
    assert values["ring_lease_ttl_seconds"] == 3.0


def test_values_have_the_labels_that_the_table_says(node: Node) -> None:
    """As many values as names, for each sample."""
    node.routing.links["n2"] = cast("Any", Link("n2", 1))
    for metric, value in node.readings():
        if isinstance(value, dict):
            assert metric.labels, metric.name
            assert all(len(labels) == len(metric.labels) for labels in value), metric.name
        else:
            assert not metric.labels, metric.name


def test_codes_are_there_before_they_come(node: Node) -> None:
    """At 0: a rate sees the first of them."""
    values = readings(node)
    for name in ("ring_handshakes_refused_total", "ring_client_errors_total"):
        assert values[name] == {(code.value,): 0 for code in ErrorCode}
    closed, receipts = values["ring_connections_closed_total"], values["ring_receipts_total"]
    assert isinstance(closed, dict)
    assert isinstance(receipts, dict)
    assert {("1000",), ("1005",), ("1006",), ("4008",), ("other",)} <= closed.keys()
    assert len(receipts) == 3 + len(ErrorCode)


def test_close_codes_of_a_client_make_no_labels(node: Node) -> None:
    """It may send any of thousands: those that nobody knows are one."""
    for code in (1000, 1006, 3000, 3001, 4999):
        node.telemetry.census.closed[code] += 1
    assert labelled(readings(node)["ring_connections_closed_total"]) == {
        ("1000",): 1,
        ("1006",): 1,
        ("other",): 3,
    }


def test_refusals_by_http_and_by_farewell(node: Node) -> None:
    """A browser that was told why not was refused as well."""

    class Edge:
        connections = 4
        refused = {ErrorCode.FORBIDDEN: 2, ErrorCode.BAD_REQUEST: 1}  # noqa: RUF012 - nobody changes it

    node.telemetry.edge = cast("Any", Edge())
    node.telemetry.census.turn_away(ErrorCode.FORBIDDEN)
    values = readings(node)
    assert labelled(values["ring_handshakes_refused_total"]) == {("forbidden",): 3, ("bad_request",): 1}
    assert values["ring_connections"] == 4


def test_receipts(node: Node) -> None:
    """By what they say; what does not apply is an empty label."""
    receipts = node.telemetry.census.receipts
    receipts["client"], receipts["pong"], receipts["queued"], receipts[ErrorCode.BUSY] = 1, 2, 3, 4
    assert labelled(readings(node)["ring_receipts_total"]) == {
        ("delivered", "client", ""): 1,
        ("delivered", "pong", ""): 2,
        ("queued", "", ""): 3,
        ("failed", "", "busy"): 4,
    }


def test_letters_without_a_fate(node: Node) -> None:
    """In all mailboxes; one that was settled out of order does not count."""
    for user in ("alice", "bob"):
        box = node.mailboxes.open(user)
        for number in range(3):
            box.append(Letter(1, number, "carol", str(number), b"{}", 2, 0.0, 2.0, "n1", 1, ""))
    box.letters[1].status = "delivered"
    box.settle(box.letters[1])
    assert readings(node)["ring_messages_unacknowledged"] == 5


def test_links_that_follow_each_other(node: Node) -> None:
    """What all have carried counts, so that no counter goes back; a peer that is gone is no label."""
    frames = "ring_link_frames_total"
    for count in (3, 4, 5):
        link = Link("n2", count)
        node.routing.links["n2"] = cast("Any", link)
        node.telemetry.link_up(cast("Any", link))
    assert labelled(readings(node)[frames]) == {("n2", "out"): 12}
    assert labelled(readings(node)["ring_link_items_total"]) == {("n2", "out"): 24}
    assert readings(node)["ring_link_busy"] == {("n2",): True}
    assert readings(node)["ring_link_queued_bytes"] == {("n2",): 5}
    link.traffic.sent(1, 1)
    assert labelled(readings(node)[frames]) == {("n2", "out"): 13}
    del node.routing.links["n2"]
    assert readings(node)[frames] == {}
    node.routing.links["n2"] = cast("Any", Link("n2", 1))
    assert labelled(readings(node)[frames]) == {}


def test_peers_that_are_gone_are_forgotten(node: Node) -> None:
    """Also where nobody scrapes: nodes come under names of their own for as long as this one runs."""
    gone = Link("n2", 3)
    held = weakref.ref(gone)
    node.telemetry.link_up(cast("Any", gone))
    del gone
    assert held() is None, "nothing holds on to a link that has ended"
    node.telemetry.link_up(cast("Any", Link("n3", 3)))
    node.routing.links["n2"] = cast("Any", again := Link("n2", 1))
    node.telemetry.link_up(cast("Any", again))
    assert labelled(readings(node)["ring_link_frames_total"]) == {("n2", "out"): 1}


def test_a_state_of_a_link_that_a_later_release_knows(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown beside the known ones."""
    monkeypatch.setattr(node, "links", lambda: {"n2": "up", "n3": "dozing", "n4": "up"})
    peers = readings(node)["ring_peers"]
    assert labelled(peers) == {("up",): 2, ("dozing",): 1}
    assert isinstance(peers, dict)
    assert ("none",) in peers
    assert readings(node)["ring_link_up"] == {("n2",): 0, ("n3",): 0, ("n4",): 0}
