"""How a session acknowledges: by its frames, or by the pongs of its client's stack."""

import pytest

from ring.edge.session import PING_S
from ring.protocol import peer
from tests.edge.desk import Client, Desk


def sent(desk: Desk, sender: Client, *ids: str, to: str = "bob") -> None:
    """Messages without anything else in their ticks."""
    for message_id in ids:
        sender.say("send", id=message_id, to=to, data=1)


class TestClient:
    """`ack=client`."""

    def test_it_is_cumulative(self) -> None:
        """One frame acknowledges all that came up to it; it has no answer itself."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        sent(desk, alice, "m1", "m2", "m3")
        bob.heard()
        bob.say("ack", seq="7-2")
        assert [(frame["id"], frame["by"]) for frame in alice.heard()] == [("m1", "client"), ("m2", "client")]
        bob.say("ack", seq="7-1")
        bob.say("ack", seq="7-2")
        assert bob.heard() == []
        bob.say("ack", seq="7-3")
        assert alice.only()["id"] == "m3"

    def test_with_an_id_it_is_answered(self) -> None:
        """Once, as every frame that has one: `ok`, again where nothing was new, or `error`."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        sent(desk, alice, "m1")
        bob.heard()
        for _ in range(2):
            bob.say("ack", seq="7-1", id="a1")
            assert bob.only() == {"type": "ok", "id": "a1"}
        for seq in ("7-2", "x"):
            bob.say("ack", seq=seq, id="a2")
            error = bob.only()
            assert (error["type"], error["id"], error["code"]) == ("error", "a2", "bad_request")
        bob.say("ack", seq="7-1", id=None)
        assert bob.heard() == []

    @pytest.mark.parametrize("seq", ["7-2", "8-1", "7-99"])
    def test_beyond_what_was_sent_it_is_an_error_and_ignored(self, seq: str) -> None:
        """What comes later is not acknowledged by it."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        sent(desk, alice, "m1")
        bob.heard()
        bob.say("ack", seq=seq)
        error = bob.only()
        assert (error["type"], error["code"], error["retryable"]) == ("error", "bad_request", False)
        sent(desk, alice, "m2")
        assert alice.heard() == []

    @pytest.mark.parametrize("seq", ["", "7", "7-", "x-1", "7-1-1", "-7-1", "7-\uff11"])
    def test_no_sequence_is_an_error(self, seq: str) -> None:
        """Nothing is acknowledged."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        sent(desk, alice, "m1")
        bob.heard()
        bob.say("ack", seq=seq)
        assert bob.only()["code"] == "bad_request"
        assert alice.heard() == []

    def test_no_ping_asks_for_it(self) -> None:
        """Pings are heartbeats alone, and their pongs acknowledge nothing."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        sent(desk, alice, "m1")
        desk.pass_time(1)
        assert bob.pings() == []
        bob.pong(b"7-1")
        assert alice.heard() == []

    def test_what_another_session_was_sent_is_not_to_be_acknowledged(self) -> None:
        """Each session acknowledges what it was sent itself."""
        desk = Desk()
        alice, laptop = desk.welcomed("alice"), desk.welcomed("bob", "laptop")
        sent(desk, alice, "m1")
        laptop.say("ack", seq="7-1")
        phone = desk.welcomed("bob")
        sent(desk, alice, "m2")
        phone.say("ack", seq="7-2")
        assert [frame["id"] for frame in alice.heard()] == ["m1", "m2"]
        assert [frame["id"] for frame in phone.heard()] == ["m2"]

    def test_at_another_node_it_goes_over_the_link(self) -> None:
        """By the handle of the session's attachment; while there is no link, nothing is sent."""
        desk = Desk(away=("bob",))
        bob = desk.connect("bob")
        [attach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        desk.from_peer(peer.Attached(attach.handle, (7, 3), False))
        body = b'{"type":"message","from":"a","id":"m1","seq":"7-%d","data":1,"sent_at":1}'
        desk.from_peer(*(peer.Deliver(attach.handle, 7, number, body % number, True) for number in (4, 5)))
        assert [frame["type"] for frame in bob.heard()] == ["welcome", "message", "message"]
        bob.say("ack", seq="7-3")
        bob.say("ack", seq="7-5")
        assert desk.link.items[1:] == [peer.Ack(attach.handle, 7, 5, "client")]
        del desk.routing.links["n2"]
        desk.from_peer(peer.Deliver(attach.handle, 7, 6, body % 6, True))
        bob.say("ack", seq="7-6")
        assert len(desk.link.items) == 2


class TestPong:
    """`ack=auto`: a ping carries the sequence, the pong acknowledges."""

    def test_one_ping_asks_for_all_that_a_tick_brought(self) -> None:
        """It goes out behind the messages; its pong acknowledges them all."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        for message_id in ("m1", "m2", "m3"):
            alice.session.on_text(b'{"type":"send","id":"%s","to":"bob","data":1}' % message_id.encode())
        assert bob.pings() == []
        desk.tick()
        assert bob.pings() == [b"7-3"]
        bob.pong(b"7-3")
        assert [(frame["id"], frame["by"]) for frame in alice.heard()] == [
            ("m1", "pong"),
            ("m2", "pong"),
            ("m3", "pong"),
        ]

    def test_pings_are_so_far_apart(self) -> None:
        """At most one in 100 ms; what came meanwhile is asked for together, and then silence."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        sent(desk, alice, "m1")
        assert bob.pings() == [b"7-1"]
        sent(desk, alice, "m2", "m3")
        desk.pass_time(PING_S - 0.02)
        assert bob.pings() == []
        desk.pass_time(0.1)
        assert bob.pings() == [b"7-3"]
        sent(desk, alice, "m4")
        assert bob.pings() == []
        desk.pass_time(PING_S + 0.05)
        assert bob.pings() == [b"7-4"]
        desk.pass_time(5)
        assert bob.pings() == []
        sent(desk, alice, "m5")
        assert bob.pings() == [b"7-5"]

    def test_a_pong_acknowledges_what_its_ping_carried(self) -> None:
        """Not what came since; a late one not less than a later one has done."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        sent(desk, alice, "m1")
        sent(desk, alice, "m2")
        bob.pong(b"7-1")
        assert alice.only()["id"] == "m1"
        desk.pass_time(0.2)
        bob.pong(b"7-2")
        bob.pong(b"7-1")
        assert alice.only()["id"] == "m2"

    @pytest.mark.parametrize("payload", [b"7-2", b"8-1", b"", b"hello", b"\xff\xfe", b"7-1 ", b"0-0"])
    def test_other_pongs_say_nothing(self, payload: bytes) -> None:
        """Of what no ping carried, or of no sequence: they are allowed, and acknowledge nothing."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        sent(desk, alice, "m1")
        sent(desk, alice, "m2")  # 7-2 has been sent and not asked for
        bob.heard()
        bob.pong(payload)
        assert alice.heard() == []
        assert (bob.heard(), bob.close_code()) == ([], None)

    def test_frames_acknowledge_too(self) -> None:
        """A client may do both."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        sent(desk, alice, "m1")
        bob.say("ack", seq="7-1")
        assert alice.only()["status"] == "delivered"
        bob.pong(b"7-1")
        assert alice.heard() == []

    def test_what_is_at_most_once_is_not_asked_for(self) -> None:
        """No ping for it; it is in the sequence of the next one."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        alice.say("send", to="bob", data=1, receipt=False)
        assert bob.pings() == []
        sent(desk, alice, "m2")
        assert bob.pings() == [b"7-2"]

    def test_no_ping_goes_to_who_is_gone(self) -> None:
        """The connection ended in the very tick that brought a message."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        alice.session.on_text(b'{"type":"send","id":"m1","to":"bob","data":1}')
        bob.hang_up()
        desk.tick()
        desk.pass_time(1)
        assert bob.pings() == []
