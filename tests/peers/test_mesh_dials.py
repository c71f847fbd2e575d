"""Dials that fail, links that break, and what comes after."""

import errno
import socket

import msgspec
import pytest
import structlog
import trio

from ring.peers import mesh as mesh_module
from ring.peers.dial import connect
from ring.peers.link import HIGH_WATER
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Receipt
from ring.transport.handshake import Refuse
from tests.peers.fakes import numbered, receipt
from tests.peers.nodes import Node, Proxy, link_all, start, until_logged, until_outcome, view


async def test_a_dial_that_is_refused_is_told_from_one_that_times_out(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused: nobody listens. Timeout: no answer, and no way there either."""
    monkeypatch.setattr(mesh_module, "CONNECT_S", 0.05)
    one = Node("n1")
    await nursery.start(one.run)
    with socket.socket() as silent, structlog.testing.capture_logs() as logs:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        where = silent.getsockname()
        with socket.create_connection(where), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(where)
            ghosts = [
                msgspec.structs.replace(one.member, name="n2", peer="127.0.0.1:1"),
                msgspec.structs.replace(one.member, name="n3", peer=f"127.0.0.1:{where[1]}"),
                msgspec.structs.replace(one.member, name="n4", peer="nonsense"),
            ]
            one.mesh.update(view(5, one, *ghosts))
            assert one.mesh.dial_outcome("n2") is None
            await until_outcome(one, "n2", "refused")
            await until_outcome(one, "n3", "timeout")
            await until_outcome(one, "n4", "timeout")
            await until_logged(logs, "nobody listens there")
            await until_logged(logs, "no answer within")
            await until_logged(logs, "not an address")


async def test_a_node_that_takes_connections_and_says_nothing_times_out(nursery: trio.Nursery) -> None:
    """As one that is frozen does: its kernel answers for it. That is no refusal."""
    one = Node("n1", handshake_s=0.1)
    await nursery.start(one.run)
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen(100)
        ghost = msgspec.structs.replace(one.member, name="n2", peer=f"127.0.0.1:{frozen.getsockname()[1]}")
        one.mesh.update(view(5, one, ghost))
        await until_outcome(one, "n2", "timeout")
    await until_outcome(one, "n2", "refused")


async def test_something_that_is_no_node_is_neither_dead_nor_silent(nursery: trio.Nursery) -> None:
    """A server of clients at that address: its refusal is in the log."""
    one = Node("n1")
    await nursery.start(one.run)
    listener = one.pump.listen(
        "127.0.0.1:0", lambda request, peer: Refuse(404, ErrorCode.BAD_REQUEST, "what?")
    )
    with structlog.testing.capture_logs() as logs:
        one.mesh.update(view(5, one, msgspec.structs.replace(one.member, name="n2", peer=listener.address)))
        await until_outcome(one, "n2", "refused_by_peer")
        await until_logged(logs, "ended with 1006 HTTP 404")


async def test_a_dial_goes_on_until_somebody_listens(nursery: trio.Nursery) -> None:
    """With back-off; then the link comes about by itself."""
    one = Node("n1")
    await nursery.start(one.run)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        late = msgspec.structs.replace(one.member, name="n2", peer=address)
        one.mesh.update(view(5, one, late))
        await until_outcome(one, "n2", "refused")
    other = Node("n2")
    other.pump.listen(address, other.mesh.door)
    await nursery.start(other.run)
    await one.mesh.wait_linked(["n2"])


async def test_a_dial_that_fails_in_a_way_nobody_expected_is_logged_and_repeated(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One peer never takes a node down."""
    failures = 0

    async def fail_twice(address: str) -> socket.socket:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise ZeroDivisionError
        return await connect(address)

    monkeypatch.setattr(mesh_module, "connect", fail_twice)
    with structlog.testing.capture_logs() as logs:
        await link_all(5, *pair)
    assert [entry["event"] for entry in logs].count("dialling failed") == 2


async def test_a_connection_that_breaks_before_the_upgrade_is_dialled_again(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something took it, so its machine is neither dead nor silent."""
    one, other = pair

    def adopt(sock: socket.socket, *arguments: object, **options: object) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    with structlog.testing.capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(one.pump, "adopt", adopt)
        one.mesh.update(view(5, one, other))
        await until_outcome(one, "n2", "refused_by_peer")
        await until_logged(logs, "not connected")
    await one.mesh.wait_linked(["n2"])


async def test_an_address_that_no_way_leads_to_is_an_error_at_once() -> None:
    """A broadcast address takes no connections."""
    with pytest.raises(OSError, match=r"ermission|nreachable"):
        await connect("255.255.255.255:9")


async def test_a_dial_that_meets_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may pick the very port that is dialled, and connect a socket to itself."""

    class Unlucky(socket.socket):
        def connect_ex(self, where: tuple[str, int]) -> int:  # type: ignore[override]  # of this test alone
            self.bind(where)
            return super().connect_ex(where)

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    monkeypatch.setattr(socket, "socket", Unlucky)
    with pytest.raises(ConnectionRefusedError):
        await connect(f"127.0.0.1:{port}")


async def test_a_dial_that_is_given_up_closes_its_socket() -> None:
    """Whatever it was waiting for."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        where = silent.getsockname()
        with socket.create_connection(where), socket.socket() as second, trio.move_on_after(0.05) as scope:
            second.setblocking(False)
            second.connect_ex(where)
            await connect(f"127.0.0.1:{where[1]}")
        assert scope.cancelled_caught


async def test_links_that_flap_lose_nothing_that_was_sent_after_the_last_came_up(
    nursery: trio.Nursery,
) -> None:
    """Twenty times cut, on either side: ups and downs balance, and the last link carries all, in order."""
    one, other = await start(nursery, Node("n1"), Node("n2"))
    await link_all(5, one, other)
    for count in range(20):
        (one if count % 2 else other).cut("n2" if count % 2 else "n1")
        await one.recorder.until_events(3 + 2 * count)
        await other.recorder.until_events(3 + 2 * count)
    for number in range(100):
        one.link("n2").send(numbered(number))
    await other.recorder.until_items(100)
    assert other.recorder.numbers == list(range(100))
    for node, name in ((one, "n2"), (other, "n1")):
        assert node.recorder.story == [f"up {name}/i1", f"down {name}/i1"] * 20 + [f"up {name}/i1"]
        links = [link for _, link in node.recorder.events]
        assert links[0:40:2] == links[1:40:2]
        assert len(set(links)) == 21


async def test_a_network_that_cuts_is_dialled_through_again(nursery: trio.Nursery) -> None:
    """Both sides hear of the end, then of the new link."""
    one, other = Node("n1"), Node("n2")
    proxy = Proxy(other.member.peer)
    await nursery.start(proxy.run)
    await start(nursery, one, other)
    behind = msgspec.structs.replace(other.member, peer=proxy.address)
    for node in (one, other):
        node.mesh.update(view(5, one, behind))
    for round_ in range(1, 4):
        await one.mesh.wait_linked(["n2"])
        await other.mesh.wait_linked(["n1"])
        await proxy.cut()
        await one.recorder.until_events(2 * round_)
        await other.recorder.until_events(2 * round_)
    assert one.recorder.story == ["up n2/i1", "down n2/i1"] * 3


async def test_a_network_that_stands_still_is_noticed_by_both(nursery: trio.Nursery) -> None:
    """Without a packet to say so: pings go unanswered."""
    one, other = Node("n1", ping_s=0.05), Node("n2", ping_s=0.05)
    proxy = Proxy(other.member.peer)
    await nursery.start(proxy.run)
    await start(nursery, one, other)
    behind = msgspec.structs.replace(other.member, peer=proxy.address)
    for node in (one, other):
        node.mesh.update(view(5, one, behind))
        await node.recorder.until_events(1)
    with structlog.testing.capture_logs() as logs:
        proxy.stall()
        await one.recorder.until_events(2)
        await other.recorder.until_events(2)
        await until_logged(logs, "nothing was heard for 0.1 s")
    await proxy.cut()
    proxy.flow()
    await one.mesh.wait_linked(["n2"])


async def test_a_newer_link_takes_the_place_of_one_that_is_half_open(nursery: trio.Nursery) -> None:
    """The dialer's end is gone, the acceptor has not noticed: down comes before up, and nothing blocks."""
    one, other = Node("n1"), Node("n2")
    proxy = Proxy(other.member.peer)
    await nursery.start(proxy.run)
    await start(nursery, one, other)
    behind = msgspec.structs.replace(other.member, peer=proxy.address)
    for node in (one, other):
        node.mesh.update(view(5, one, behind))
        await node.recorder.until_events(1)
    first = other.link("n1")
    proxy.hides_ends = True
    one.cut("n2")
    await one.recorder.until_events(3)
    await other.recorder.until_events(3)
    assert other.recorder.story == ["up n1/i1", "down n1/i1", "up n1/i1"]
    assert not first.up
    assert other.link("n1") is not first
    one.link("n2").send(numbered(1))
    await other.recorder.until_items(1)


async def test_urgent_items_overtake_data_on_a_link_that_is_backed_up(nursery: trio.Nursery) -> None:
    """Only what is in the socket and in the kernel comes before them."""
    one, other = Node("n1"), Node("n2")
    proxy = Proxy(other.member.peer)
    await nursery.start(proxy.run)
    await start(nursery, one, other)
    behind = msgspec.structs.replace(other.member, peer=proxy.address)
    for node in (one, other):
        node.mesh.update(view(5, one, behind))
        await node.recorder.until_events(1)
    proxy.stall()
    link, sent = one.link("n2"), 0
    while not link.busy:
        for _ in range(32):
            link.send(numbered(sent, 32 * 1024))
            sent += 1
        await trio.lowlevel.checkpoint()
    waiting = link.queued_bytes - 2 * HIGH_WATER
    link.send_urgent(receipt(7))
    proxy.flow()
    await other.recorder.until_items(sent + 1)
    assert other.recorder.numbers == list(range(sent))
    place = next(index for index, item in enumerate(other.recorder.items) if isinstance(item, Receipt))
    assert (sent - place) * 33 * 1024 > waiting > 0
    while link.queued_bytes:
        await trio.lowlevel.checkpoint()


async def test_an_item_that_cannot_be_encoded_costs_the_link_alone(pair: tuple[Node, Node]) -> None:
    """It is logged whole; the next link comes up."""
    one, other = pair
    await link_all(5, one, other)
    with structlog.testing.capture_logs() as logs:
        one.link("n2").send(numbered(2**70))
        await one.recorder.until_events(3)
    assert one.recorder.story == ["up n2/i1", "down n2/i1", "up n2/i1"]
    assert "peer link failed" in [entry["event"] for entry in logs]
