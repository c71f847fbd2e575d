"""A session's other frames, its heartbeat, and its end."""

import pytest

from ring.protocol import client, peer
from ring.protocol.codes import CloseCode
from tests.edge.desk import Desk


class TestFrames:
    """Frames that are no messages."""

    def test_ping_is_answered(self) -> None:
        """For clients that see no WebSocket pings."""
        alice = Desk().welcomed("alice")
        alice.say("ping", id="p1", extra=[1])
        assert alice.only() == {"type": "pong", "id": "p1"}

    def test_there_is_no_token_to_refresh(self) -> None:
        """Where clients say who they are."""
        alice = Desk().welcomed("alice")
        alice.say("refresh", id="r1", token="x")
        error = alice.only()
        assert (error["type"], error["id"], error["code"]) == ("error", "r1", "bad_request")

    @pytest.mark.parametrize(
        ("payload", "code", "frame_id"),
        [
            (b"", "bad_request", None),
            (b"{", "bad_request", None),
            (b"[1]", "bad_request", None),
            (b"null", "bad_request", None),
            (b'"x"', "bad_request", None),
            (b"[" * 5000, "bad_request", None),
            (b"{}", "bad_request", None),
            (b'{"id":"f1"}', "bad_request", "f1"),
            (b'{"type":7,"id":"f1"}', "bad_request", "f1"),
            (b'{"type":"ping"}', "bad_request", None),
            (b'{"type":"ping","id":7}', "bad_request", None),
            (b'{"type":"ack"}', "bad_request", None),
            (b'{"type":"ack","seq":7,"id":"f1"}', "bad_request", "f1"),
            (b'{"type":"refresh","id":"f1"}', "bad_request", "f1"),
            (b'{"type":"send","data":1}', "bad_request", None),
            (b'{"type":"send","id":7,"to":"b","data":1}', "bad_request", None),
            (b'{"type":"dance"}', "unknown_type", None),
            (b'{"type":"dance","id":"f1"}', "unknown_type", "f1"),
            (b'{"type":"receipt","id":"f1","status":"delivered"}', "unknown_type", "f1"),
            (b'{"type":"dance","id":"' + b"x" * 500 + b'"}', "unknown_type", "x" * 500),
        ],
    )
    def test_what_cannot_be_read_gets_an_error(self, payload: bytes, code: str, frame_id: str | None) -> None:
        """With the frame's id, where one can be read; the session goes on."""
        alice = Desk().welcomed("alice")
        alice.say_raw(payload)
        error = alice.only()
        assert (error["type"], error["code"], error["retryable"]) == ("error", code, False)
        assert error.get("id") == frame_id
        assert error["message"]
        alice.say("ping", id="p1")
        assert alice.only()["type"] == "pong"

    @pytest.mark.parametrize("payload", [b'{"type":"send","id":"m1"}', b'{"type":"send","id":"m1","to":"b"}'])
    def test_a_message_that_cannot_be_read_gets_a_receipt(self, payload: bytes) -> None:
        """It is what its sender waits for."""
        alice = Desk().welcomed("alice")
        alice.say_raw(payload)
        receipt = alice.only()
        assert (receipt["type"], receipt["id"], receipt["status"]) == ("receipt", "m1", "failed")
        assert receipt["code"] == "bad_request"

    def test_binary_ends_the_connection(self) -> None:
        """1003: JSON text alone is spoken."""
        alice = Desk().welcomed("alice")
        alice.session.on_binary(b"x")
        assert alice.close_code() == CloseCode.UNSUPPORTED_DATA
        alice.desk.tick()


class TestHeartbeat:
    """The node pings who is silent."""

    def test_it_comes_every_so_often_and_its_answer_keeps_the_connection(self) -> None:
        """Empty pings: they carry no sequence. The first comes at a random time within the first period."""
        desk = Desk(heartbeat_s=10)
        alice = desk.welcomed("alice")
        desk.pass_time(4.9)
        assert alice.pings() == []
        desk.pass_time(5.2)
        assert alice.pings() == [b""]
        for _ in range(10):
            alice.pong()
            desk.pass_time(10.05)
            assert alice.pings() == [b""]
        assert alice.close_code() is None

    def test_two_in_a_row_without_a_sign_of_life_end_it(self) -> None:
        """4010; one miss is forgiven."""
        desk = Desk(heartbeat_s=10)
        alice = desk.welcomed("alice")
        desk.pass_time(10.1)
        alice.pong()
        desk.pass_time(20.1)  # one answered, one not
        assert alice.close_code() is None
        alice.pong()
        desk.pass_time(20.1)
        assert alice.close_code() is None
        desk.pass_time(10.1)
        assert alice.close_code() == CloseCode.HEARTBEAT_LOST
        assert len(alice.pings()) == 5

    def test_frames_are_signs_of_life(self) -> None:
        """Whoever sends is alive, also before the welcome."""
        desk = Desk(heartbeat_s=3, away=("bob",))
        alice, bob = desk.welcomed("alice"), desk.connect("bob")
        for index in range(3):
            desk.pass_time(3)
            alice.say("ping", id=f"p{index}")
            bob.say("ping", id=f"p{index}")
        assert (alice.close_code(), bob.close_code()) == (None, None)

    def test_a_lost_one_is_waited_for(self) -> None:
        """It said no goodbye: messages for it wait for its coming back."""
        desk = Desk(heartbeat_s=1)
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        for _ in range(40):
            desk.pass_time(0.1)
            alice.pong()
        assert (alice.close_code(), bob.close_code()) == (None, CloseCode.HEARTBEAT_LOST)
        alice.heard()
        bob = desk.connect("bob")
        bob.heard()
        bob.hang_up(CloseCode.HEARTBEAT_LOST)
        alice.say("send", id="m1", to="bob", data=1)
        assert alice.heard() == []


class TestSlow:
    """A client that reads slowly."""

    def test_what_is_at_most_once_gives_way(self) -> None:
        """Dropped and counted while more than half of the output's bound is queued; messages pass."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        bob.socket.queued = 5000
        alice.say("send", to="bob", data=1, receipt=False)
        assert len(bob.heard()) == 1
        bob.socket.queued = 5001
        alice.say("send", to="bob", data=2, receipt=False)
        alice.say("send", id="m1", to="bob", data=3)
        assert [frame["data"] for frame in bob.heard()] == [3]
        assert desk.mailboxes.dropped_untracked == 1
        bob.say("ack", seq="7-3")
        assert alice.only()["id"] == "m1"

    def test_one_too_far_behind_is_closed(self) -> None:
        """4008, by the owner: what comes next is no longer kept."""
        desk = Desk()
        alice, bob, laptop = desk.welcomed("alice"), desk.welcomed("bob"), desk.welcomed("bob", "laptop")
        for index in range(513):
            alice.say("send", id=f"m{index}", to="bob", data=1)
            laptop.say("ack", seq=laptop.only()["seq"])
        assert bob.close_code() is None
        bob.say("ack", seq=bob.heard()[0]["seq"])
        assert bob.close_code() == CloseCode.SLOW_CONSUMER
        assert len(desk.mailboxes.boxes["bob"].attachments) == 1


class TestEnd:
    """How a session ends."""

    def test_the_same_device_again_replaces_it(self) -> None:
        """4009; the new one is welcomed and gets what comes."""
        desk = Desk()
        alice, old = desk.welcomed("alice"), desk.welcomed("bob")
        new = desk.welcomed("bob")
        assert (old.close_code(), new.close_code()) == (CloseCode.REPLACED, None)
        alice.say("send", id="m1", to="bob", data=1)
        assert (old.heard(), len(new.heard())) == ([], 1)

    def test_what_a_replaced_one_still_says_counts_for_nothing(self) -> None:
        """Its acknowledgement came in the tick that replaced it: the owner has forgotten it already."""
        desk = Desk()
        alice, old = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1)
        [attachment] = desk.mailboxes.boxes["bob"].attachments
        desk.mailboxes.detach(attachment, clean=False)
        old.session.expel(CloseCode.REPLACED, "the same device connected again")
        old.session.on_text(b'{"type":"ack","seq":"7-1"}')
        desk.tick()
        assert alice.heard() == []

    def test_an_owner_elsewhere_can_end_it(self) -> None:
        """By its handle; its own word does not tell the owner again what that knows."""
        desk = Desk(away=("bob",))
        bob = desk.connect("bob")
        [attach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        desk.from_peer(peer.Expel(attach.handle + 1, 4009, "x"))
        assert bob.close_code() is None
        desk.from_peer(peer.Expel(attach.handle, 4009, "the same device connected again"))
        assert bob.socket.closed == (4009, "the same device connected again")

    def test_it_can_be_asked_to_go_elsewhere(self) -> None:
        """A frame that says when to come back, then 1012."""
        alice = Desk().welcomed("alice")
        alice.session.reconnect(250, "the node drains")
        assert alice.only() == {"type": "reconnect", "after_ms": 250, "reason": "the node drains"}
        assert alice.socket.closed == (CloseCode.SERVICE_RESTART, "the node drains")

    @pytest.mark.parametrize("code", [CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.ABNORMAL])
    def test_a_goodbye_makes_the_user_offline(self, code: int) -> None:
        """1000 alone says that it will not come back; after anything else the user is waited for."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        bob.hang_up(code)
        alice.say("send", id="m1", to="bob", data=1)
        assert len(alice.heard()) == (1 if code == CloseCode.NORMAL else 0)

    def test_its_owner_elsewhere_is_told(self) -> None:
        """Whether it was a goodbye too."""
        desk = Desk(away=("bob",))
        bob, carol = desk.connect("bob"), desk.connect("bob", "laptop")
        handles = [item.handle for item in desk.link.items if isinstance(item, peer.Attach)]
        bob.hang_up()
        carol.hang_up(CloseCode.ABNORMAL)
        assert desk.link.items[2:] == [peer.Detach(handles[0], True), peer.Detach(handles[1], False)]

    def test_after_it_nothing_is_sent_and_nothing_is_left(self) -> None:
        """Whatever still comes for it finds nobody; its timers are gone."""
        desk = Desk()
        alice = desk.welcomed("alice", by="pong")
        session = alice.session
        desk.connect("bob").say("send", id="m1", to="alice", data=1)
        alice.heard()
        alice.hang_up()
        session.deliver(7, 9, b"{}", True)
        session.receipt("m", "delivered", "client", None, None)
        session.on_ping(client.Ping("p"))
        session.on_ack(client.Ack("x"))
        session.reconnect(1, "x")
        session.close(1000, "x")
        session.ping_now()
        session.on_drained()
        desk.pass_time(100)
        assert (alice.heard(), alice.socket.pings, alice.close_code()) == ([], [b"7-1"], None)
        assert session.sid not in desk.attachments.sessions

    def test_a_second_end_is_none(self) -> None:
        """The transport says it once; if it came twice nothing would break."""
        desk = Desk()
        alice = desk.welcomed("alice")
        alice.hang_up()
        alice.hang_up()
        assert desk.attachments.sessions == {}


def test_names_of_sessions_are_never_given_twice() -> None:
    """By the node's name and a number that also earlier lives of the node have not given."""
    desk = Desk()
    names = {desk.connect("bob", f"d{index}").session.name for index in range(20)}
    assert len(names) == 20
    assert all(name.startswith("n1.") for name in names)
