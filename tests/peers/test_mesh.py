"""How nodes are linked, and who is refused: several in one program, on real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from ring.peers import mesh as mesh_module
from ring.peers.proof import Handshake, hello
from ring.protocol.codes import CloseCode, ErrorCode
from ring.protocol.peer import PEER_PATH, SUBPROTOCOL, decode_batch
from ring.protocol.upgrade import client_request, parse_request
from ring.transport.address import split_address
from ring.transport.handshake import Accept, Refuse
from tests.peers.fakes import SECRET, batch, numbered
from tests.peers.nodes import Node, link_all, start, until_logged, until_outcome, view


async def test_three_nodes_have_one_link_per_pair(nursery: trio.Nursery) -> None:
    """The lower name dials; each side hears of each link once."""
    nodes = [Node("n1"), Node("n2"), Node("n3")]
    for node in nodes:
        await nursery.start(node.run)
    await link_all(5, *nodes)
    for node in nodes:
        others = {other.member.name for other in nodes if other is not node}
        assert node.mesh.links.keys() == others
        assert sorted(node.recorder.story) == sorted(f"up {name}/i1" for name in others)
        assert node.pump.connections == 2
        assert {node.mesh.dial_outcome(name) for name in others} == {"up"}
        assert node.mesh.links.get("n9") is None
        assert node.mesh.dial_outcome("n9") is None


async def test_items_pass_both_ways_in_order(pair: tuple[Node, Node]) -> None:
    """Data as it was sent; what a tick brought comes as one batch."""
    one, other = pair
    await link_all(5, one, other)
    for number in range(1000):
        one.link("n2").send(numbered(number))
        other.link("n1").send(numbered(number))
    await other.recorder.until_items(1000)
    await one.recorder.until_items(1000)
    assert one.recorder.numbers == other.recorder.numbers == list(range(1000))
    assert len(other.recorder.batches) < 20


async def test_a_view_may_come_before_the_mesh_runs(nursery: trio.Nursery) -> None:
    """The dials begin with `run`."""
    one, other = Node("n1"), Node("n2")
    for node in (one, other):
        node.mesh.update(view(5, one, other))
    await start(nursery, one, other)
    await link_all(5, one, other)


async def test_draining_members_are_linked_too(nursery: trio.Nursery) -> None:
    """They have to hand over what they hold."""
    one, other = await start(nursery, Node("n1"), Node("n2", state="draining"))
    await link_all(5, one, other)


async def test_waiting_for_links_returns_at_once_if_they_are_up(pair: tuple[Node, Node]) -> None:
    """A node needs no link to itself."""
    one, other = pair
    await link_all(5, one, other)
    await one.mesh.wait_linked(["n1", "n2"])
    await one.mesh.wait_linked([])


async def test_a_foreign_client_can_link(nursery: trio.Nursery) -> None:
    """The wire is WebSocket as anybody speaks it: another library makes the upgrade and the proof."""
    other = Node("n2")
    await nursery.start(other.run)
    other.mesh.update(view(5, other))
    async with dial_as_stranger(nursery, other) as stranger:
        proof = Handshake(hello("demo", "n1", "i7", 5), SECRET, dials="n2", admit=lambda _: None)
        await stranger.send_message(proof.start())
        await stranger.send_message(proof.receive(await message_of(stranger)))
        proof.receive(await message_of(stranger))
        assert proof.proven
        assert decode_batch(await message_of(stranger)).epoch == 5
        await stranger.send_message(batch([numbered(1)]))
        await other.recorder.until_items(1)
    await other.recorder.until_events(2)
    assert other.recorder.story == ["up n1/i7", "down n1/i7"]


@asynccontextmanager
async def dial_as_stranger(nursery: trio.Nursery, node: Node) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket to the node's peer address, upgraded and no more."""
    address = node.member.peer
    async with (
        await trio.open_tcp_stream(*split_address(address)) as stream,
        await wrap_client_stream(nursery, stream, address, PEER_PATH, subprotocols=[SUBPROTOCOL]) as stranger,
    ):
        yield stranger


async def message_of(stranger: WebSocketConnection) -> bytes:
    """The next binary message."""
    message = await stranger.get_message()
    assert isinstance(message, bytes)
    return message


async def end_of(stranger: WebSocketConnection) -> int:
    """The close code with which the node ends it."""
    while True:
        try:
            await stranger.get_message()
        except ConnectionClosed as closed:
            return CloseCode.ABNORMAL if closed.reason is None else closed.reason.code


async def test_another_secret_is_refused_and_both_logs_say_what_to_check(nursery: trio.Nursery) -> None:
    """The dial is repeated, quietly; no link is ever announced."""
    with structlog.testing.capture_logs() as logs:
        one, other = await start(nursery, Node("n1", secret=b"a typing mistake"), Node("n2"))
        for node in (one, other):
            node.mesh.update(view(5, one, other))
        at_acceptor = await until_logged(logs, "check that both nodes are given the same cluster secret")
        at_dialer = await until_logged(logs, "check that both have the same secret and cluster name")
        await until_outcome(one, "n2", "refused_by_peer")
        before = other.pump.messages_in
        while other.pump.messages_in < before + 9:
            await trio.lowlevel.checkpoint()
    assert (at_acceptor["peer"], at_dialer["peer"]) == ("n1", "n2")
    assert len([entry for entry in logs if "why" in entry]) == 2
    assert SECRET.decode() not in str(logs)
    assert one.recorder.events == other.recorder.events == []


async def test_another_cluster_is_refused_and_both_logs_name_it(nursery: trio.Nursery) -> None:
    """Each says which cluster the other is of."""
    with structlog.testing.capture_logs() as logs:
        one, other = await start(nursery, Node("n1", cluster="prod"), Node("n2"))
        for node in (one, other):
            node.mesh.update(view(5, one, other))
        await until_logged(logs, "is of cluster 'prod', this node of 'demo'")
        await until_logged(logs, "is of cluster 'demo', this node of 'prod'")
    assert one.recorder.events == other.recorder.events == []


async def test_versions_that_do_not_meet_are_refused_and_named(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a rolling upgrade over more than one release."""
    one, other = await start(nursery, Node("n1"), Node("n2"))
    make = one.mesh._make_link

    def hello_of_tomorrow(*arguments: object) -> object:
        return msgspec.structs.replace(hello("demo", "n1", "i1", 5), oldest=3, newest=4)

    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patch:

        def make_link(dials: str | None) -> object:
            patch.setattr(mesh_module, "hello", hello_of_tomorrow)
            link = make(dials)
            patch.setattr(mesh_module, "hello", hello)
            return link

        patch.setattr(one.mesh, "_make_link", make_link)
        for node in (one, other):
            node.mesh.update(view(5, one, other))
        await until_logged(logs, "speaks peer protocol 3-4, this node 1-2")
        await until_logged(logs, "speaks peer protocol 1-2, this node 3-4")


async def test_a_dial_that_reaches_another_node_is_refused(nursery: trio.Nursery) -> None:
    """An address that moved on to another node is no link to it."""
    with structlog.testing.capture_logs() as logs:
        one, other = await start(nursery, Node("n1"), Node("n3"))
        wrong = msgspec.structs.replace(other.member, name="n2")
        one.mesh.update(view(5, one, wrong))
        await until_logged(logs, "answers as 'n3'")
        await until_outcome(one, "n2", "refused_by_peer")
    assert other.recorder.events == []


async def test_a_stale_incarnation_is_refused_until_it_has_joined(nursery: trio.Nursery) -> None:
    """A node that restarted and has not joined is none of the ring's; with a later epoch it is."""
    with structlog.testing.capture_logs() as logs:
        one, other = await start(nursery, Node("n1"), Node("n2", "new"))
        old = msgspec.structs.replace(other.member, incarnation="old")
        one.mesh.update(view(5, one, old))
        await until_logged(logs, "is incarnation 'new', the ring has 'old'")
        await until_outcome(one, "n2", "refused_by_peer")
        assert one.recorder.events == other.recorder.events == []
        other.mesh.update(view(6, one, other))
        await one.mesh.wait_linked(["n2"])
    assert one.recorder.story == ["up n2/new"]


async def test_a_dialer_of_a_stale_incarnation_is_refused(nursery: trio.Nursery) -> None:
    """A node that slept while another took its name over does not push that one aside."""
    with structlog.testing.capture_logs() as logs:
        one, other = await start(nursery, Node("n1", "old"), Node("n2"))
        new = msgspec.structs.replace(one.member, incarnation="new")
        other.mesh.update(view(6, new, other))
        one.mesh.update(view(5, one, other))
        await until_logged(logs, "is incarnation 'old', the ring has 'new'")
        await until_logged(logs, "ended with 1013 not now")
    assert one.recorder.events == other.recorder.events == []


async def test_a_peer_that_never_proves_itself_is_cut(nursery: trio.Nursery) -> None:
    """The time for a handshake is bounded."""
    other = Node("n2", handshake_s=0.1)
    await nursery.start(other.run)
    with structlog.testing.capture_logs() as logs:
        async with dial_as_stranger(nursery, other) as stranger:
            assert await end_of(stranger) == CloseCode.ABNORMAL
        await until_logged(logs, "has not proven itself in time")
    while other.pump.connections:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff\xfe garbage", CloseCode.PROTOCOL_ERROR),
        (b"\x00" * 5000, CloseCode.TOO_BIG),
        ("text", CloseCode.UNSUPPORTED_DATA),
    ],
)
async def test_strangers_who_talk_nonsense_are_closed(
    nursery: trio.Nursery, message: bytes | str, code: CloseCode
) -> None:
    """And the mesh goes on."""
    other = Node("n2")
    await nursery.start(other.run)
    async with dial_as_stranger(nursery, other) as stranger:
        await stranger.send_message(message)
        assert await end_of(stranger) == code
    one = Node("n1")
    await nursery.start(one.run)
    await link_all(5, one, other)


async def test_the_door_is_at_one_path_and_for_peers_alone() -> None:
    """404 elsewhere, 400 without the sub-protocol, in words that say what to do."""
    node = Node("n2")
    target = parse_request(client_request("h", "/v1/connect", [SUBPROTOCOL])[0])
    refused = node.mesh.door(target, "127.0.0.1:9")
    assert isinstance(refused, Refuse)
    assert (refused.status, refused.code) == (404, ErrorCode.BAD_REQUEST)
    refused = node.mesh.door(parse_request(client_request("h", PEER_PATH, ["ring.v1"])[0]), "127.0.0.1:9")
    assert isinstance(refused, Refuse)
    assert refused.status == 400
    assert SUBPROTOCOL in refused.message
    accepted = node.mesh.door(parse_request(client_request("h", PEER_PATH, [SUBPROTOCOL])[0]), "127.0.0.1:9")
    assert isinstance(accepted, Accept)
    assert accepted.subprotocol == SUBPROTOCOL
    node.pump._close()
