"""A client's session: its welcome, what it may send, and the one answer to each frame."""

import pytest

from ring.edge.early import EARLY_BYTES, EARLY_FRAMES
from ring.edge.session import WELCOME_S
from ring.protocol import peer
from ring.protocol.client import MAX_DEPTH
from ring.protocol.codes import CloseCode
from tests.edge.desk import Desk, Frame


class TestWelcome:
    """The first frame."""

    def test_it_says_all_that_a_client_needs(self) -> None:
        """Who it is, where it is, what it may do; no expiry where there is none."""
        desk = Desk()
        client = desk.connect("alice")
        welcome = client.only()
        assert welcome.pop("server_time") > 1.7e12
        assert welcome == {
            "type": "welcome",
            "user": "alice",
            "session": "n1.1",
            "device": "phone",
            "node": "n1",
            "owner": "n1",
            "epoch": 7,
            "resumed": False,
            "heartbeat_s": 25.0,
            "limits": {"message_bytes": 1000, "in_flight": 4, "rooms": 3},
        }

    def test_it_says_when_the_token_expires(self) -> None:
        """In Unix milliseconds."""
        assert Desk().connect("alice", expires_at=1_800_000_000.5).only()["expires_at"] == 1_800_000_000_500

    def test_it_says_whether_the_client_missed_something(self) -> None:
        """True: what comes next is all there is; "gap": it is not."""
        desk = Desk()
        bob, alice = desk.welcomed("bob"), desk.welcomed("alice")
        alice.say("send", id="m1", to="bob", data=1)
        alice.say("send", id="m2", to="bob", data=2)
        first, second = bob.heard()
        bob.hang_up()
        welcome, *missed = desk.connect("bob", resume=first["seq"]).heard()
        assert welcome["resumed"] is True
        assert [frame["seq"] for frame in missed] == [second["seq"]]
        assert desk.connect("bob", "other", resume="nonsense").heard()[0]["resumed"] == "gap"

    def test_it_comes_from_the_owner(self) -> None:
        """A session whose user is another node's is welcomed when that node knows it."""
        desk = Desk(away=("bob",))
        client = desk.connect("bob", resume="3-4")
        assert client.heard() == []
        [attach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        assert (attach.user, attach.device, attach.session) == ("bob", "phone", "n1.1")
        assert (attach.address, attach.by, attach.resume) == ("1.2.3.4:5", "client", "3-4")
        assert (attach.sent, attach.acked) == (None, None)
        desk.from_peer(peer.Attached(attach.handle, (3, 4), True))
        welcome = client.only()
        assert (welcome["owner"], welcome["node"], welcome["resumed"]) == ("n2", "n1", True)

    def test_an_owner_that_does_not_answer_ends_the_connection(self) -> None:
        """The client may try again, elsewhere: 1013; an answer that comes later is too late."""
        desk = Desk(away=("bob",))
        client = desk.connect("bob")
        desk.pass_time(WELCOME_S - 0.1)
        assert client.close_code() is None
        desk.pass_time(0.2)
        assert client.close_code() == CloseCode.TRY_AGAIN_LATER
        [attach, detach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        assert detach == peer.Detach(attach.handle, False)
        desk.from_peer(peer.Attached(attach.handle, (3, 4), True))
        assert client.heard() == []

    def test_an_answer_in_the_tick_that_gave_up_is_too_late(self) -> None:
        """The connection is closing: nothing is said on it any more."""
        desk = Desk(away=("bob",))
        client = desk.connect("bob")
        [attach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        desk.now += WELCOME_S + 0.1
        desk.wheel.advance(desk.now)
        desk.from_peer(peer.Attached(attach.handle, (3, 4), True))
        assert (client.heard(), client.close_code()) == ([], CloseCode.TRY_AGAIN_LATER)
        desk.pass_time(60)
        assert client.heard() == []

    def test_once_welcomed_nobody_waits_for_it(self) -> None:
        """The limit is for the welcome alone."""
        desk = Desk()
        client = desk.welcomed("alice")
        desk.pass_time(WELCOME_S + 1)
        assert client.close_code() is None


class TestEarly:
    """What a client sends before its welcome."""

    def test_it_is_answered_behind_the_welcome_in_order(self) -> None:
        """Whatever it is."""
        desk = Desk(away=("alice",))
        alice, carol = desk.connect("alice"), desk.welcomed("carol")
        alice.say("send", id="m1", to="carol", data=1)
        alice.say("ping", id="p1")
        alice.say_raw(b"[]")
        alice.say("send", to="carol", data=2, receipt=False)
        assert (alice.heard(), carol.heard()) == ([], [])
        [attach] = desk.link.items
        assert isinstance(attach, peer.Attach)
        desk.from_peer(peer.Attached(attach.handle, (0, 0), False))
        assert [frame["type"] for frame in alice.heard()] == ["welcome", "pong", "error"]
        messages = carol.heard()
        assert [frame["data"] for frame in messages] == [1, 2]
        carol.say("ack", seq=messages[0]["seq"])
        assert alice.only()["id"] == "m1"
        alice.say("ping", id="p2")
        assert alice.only() == {"type": "pong", "id": "p2"}

    def test_it_is_bounded_in_number(self) -> None:
        """More is no client of ours: 1013."""
        desk = Desk(away=("alice",))
        client = desk.connect("alice")
        for index in range(EARLY_FRAMES):
            client.say("ping", id=f"p{index}")
        assert client.close_code() is None
        client.say("ping", id="one more")
        assert client.close_code() == CloseCode.TRY_AGAIN_LATER

    def test_it_is_bounded_in_bytes(self) -> None:
        """A few large frames are as much as many small ones."""
        desk = Desk(away=("alice",))
        client = desk.connect("alice")
        frame = b'"' + b"x" * (EARLY_BYTES // 2 - 2) + b'"'
        client.say_raw(frame)
        client.say_raw(frame)
        assert client.close_code() is None
        client.say_raw(b"1")
        assert client.close_code() == CloseCode.TRY_AGAIN_LATER

    def test_one_frame_is_kept_however_large(self) -> None:
        """What the node reads at all is not refused for coming early."""
        desk = Desk(away=("alice",))
        client = desk.connect("alice")
        client.say_raw(b'"' + b"x" * EARLY_BYTES + b'"')
        assert client.close_code() is None


def deep(levels: int) -> list[object]:
    """Lists in lists."""
    data: list[object] = []
    for _ in range(levels - 1):
        data = [data]
    return data


BAD_SENDS: list[tuple[Frame, str]] = [
    ({"to": ""}, "bad_request"),
    ({"to": "x" * 256}, "bad_request"),
    ({"to": "a\nb"}, "bad_request"),
    ({"to": "b", "ttl_s": 0}, "bad_request"),
    ({"to": "b", "ttl_s": -1.5}, "bad_request"),
    ({"to": "b", "ttl_s": "1"}, "bad_request"),
    ({"to": 7}, "bad_request"),
    ({}, "bad_request"),
    ({"to": "b", "receipt": 1}, "bad_request"),
    ({"to": "b", "again": None}, "bad_request"),
    ({"to": "b", "data": "x" * 999}, "too_large"),  # with its quotes
    ({"to": "b", "data": deep(MAX_DEPTH + 1)}, "bad_request"),
    ({"to": "nobody"}, "offline"),
]


class TestSend:
    """Direct messages."""

    def test_it_arrives_and_the_receipt_says_how(self) -> None:
        """The message as the recipient sees it; the receipt once it has acknowledged."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data={"a": [1, None]}, unknown="ignored")
        message = bob.only()
        assert message.pop("sent_at") > 1.7e12
        assert message == {
            "type": "message",
            "from": "alice",
            "id": "m1",
            "seq": "7-1",
            "data": {"a": [1, None]},
        }
        assert alice.heard() == []
        bob.say("ack", seq="7-1")
        assert alice.only() == {"type": "receipt", "id": "m1", "status": "delivered", "by": "client"}

    def test_what_failed_says_why(self) -> None:
        """A receipt with a code and a line for people."""
        alice = Desk().welcomed("alice")
        alice.say("send", id="m1", to="bob", data=1)
        receipt = alice.only()
        assert receipt.pop("message")
        assert receipt == {"type": "receipt", "id": "m1", "status": "failed", "code": "offline"}

    @pytest.mark.parametrize(("fields", "code"), BAD_SENDS)
    def test_what_is_refused_gets_a_receipt(self, fields: Frame, code: str) -> None:
        """One final answer to the id, with or without `receipt`; an error where there is no id to name."""
        desk = Desk()
        alice = desk.welcomed("alice")
        frame = {"id": "m1", "data": 1, **fields}
        alice.say("send", **frame)
        receipt = alice.only()
        assert (receipt["type"], receipt["id"], receipt["status"], receipt["code"]) == (
            "receipt",
            "m1",
            "failed",
            code,
        )
        if code == "offline":  # what is at most once is told nothing of that
            return
        if fields.get("receipt", True) is True:
            alice.say("send", **{**frame, "receipt": False})
            assert alice.only()["status"] == "failed"
        del frame["id"]
        alice.say("send", **{**frame, "receipt": fields.get("receipt", False)})
        error = alice.only()
        assert (error["type"], error["code"], error["retryable"]) == ("error", code, False)
        assert "id" not in error
        assert len(desk.pending) == 0

    @pytest.mark.parametrize("message_id", ["", "x" * 65, "é" * 33])
    def test_an_id_is_1_to_64_bytes(self, message_id: str) -> None:
        """Others are refused by receipt, by the id that came."""
        alice = Desk().welcomed("alice")
        alice.say("send", id=message_id, to="alice", data=1)
        receipt = alice.only()
        assert (receipt["id"], receipt["code"]) == (message_id, "bad_request")

    @pytest.mark.parametrize("data", ["x" * 998, deep(MAX_DEPTH), None, 0, {}, "é" * 499])
    def test_data_may_be_anything_within_the_limits(self, data: object) -> None:
        """As long and as deep as is told."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=data)
        assert bob.only()["data"] == data

    def test_without_an_id_there_is_no_receipt(self) -> None:
        """Only a message that wants none may go without."""
        alice = Desk().welcomed("alice")
        alice.say("send", to="bob", data=1)
        error = alice.only()
        assert (error["type"], error["code"]) == ("error", "bad_request")

    @pytest.mark.parametrize("frame", [{"id": "m1"}, {}])
    def test_at_most_once_says_nothing(self, frame: Frame) -> None:
        """Neither when it arrives nor when nobody is there: that is counted."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", to="bob", data=1, receipt=False, **frame)
        alice.say("send", to="nobody", data=1, receipt=False, **frame)
        assert alice.heard() == []
        assert bob.only()["id"] == frame.get("id")
        assert desk.mailboxes.dropped_untracked == 1
        assert desk.pending.overdue() == []

    def test_no_more_are_in_flight_than_the_limit(self) -> None:
        """`busy` beyond; those without a receipt do not count, and each receipt makes room."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        for index in range(5):
            alice.say("send", id=f"m{index}", to="bob", data=1)
        receipt = alice.only()
        assert (receipt["id"], receipt["code"]) == ("m4", "busy")
        alice.say("send", to="bob", data=1, receipt=False)
        bob.say("ack", seq="7-1")
        assert alice.only()["id"] == "m0"
        alice.say("send", id="m5", to="bob", data=1)
        assert alice.heard() == []
        assert [frame["id"] for frame in bob.heard()] == ["m0", "m1", "m2", "m3", None, "m5"]

    def test_an_id_that_is_in_flight_is_taken(self) -> None:
        """The second frame fails, the first goes on; afterwards the id is free."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1)
        alice.say("send", id="m1", to="bob", data=2)
        assert alice.only()["code"] == "bad_request"
        bob.say("ack", seq=bob.only()["seq"])
        assert alice.only()["status"] == "delivered"
        alice.say("send", id="m1", to="bob", data=3)
        assert bob.only()["data"] == 3

    def test_a_repeat_of_what_is_in_flight_is_answered_with_it(self) -> None:
        """`again`: the receipt that is to come answers both."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1)
        alice.say("send", id="m1", to="bob", data=1, again=True)
        bob.say("ack", seq=bob.only()["seq"])
        assert alice.only()["status"] == "delivered"

    def test_a_repeat_after_the_receipt_is_answered_the_same(self) -> None:
        """The recipient hears nothing of it."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1)
        bob.say("ack", seq=bob.only()["seq"])
        receipt = alice.only()
        alice.say("send", id="m1", to="bob", data=1, again=True)
        assert alice.only() == receipt
        assert bob.heard() == []

    def test_an_unknown_repeat_is_marked(self) -> None:
        """The recipient may have seen it."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1, again=True)
        assert bob.only()["redelivered"] is True

    @pytest.mark.parametrize(("ttl_s", "lives_s"), [(0.5, 0.5), (1e-9, 0.0), (1e308, 2.0), (9, 2.0)])
    def test_ttl(self, ttl_s: float, lives_s: float) -> None:
        """A message that is not acknowledged for so long has expired; whatever number it is."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1, ttl_s=ttl_s)
        assert bob.only()["id"] == "m1"
        desk.pass_time(max(lives_s - 0.05, 0))
        assert alice.heard() == []
        desk.pass_time(0.15)
        assert alice.only()["code"] == ("offline" if ttl_s > 2 else "expired")

    def test_to_oneself_it_goes_to_the_other_sessions(self) -> None:
        """The session that sends gets the receipt and no copy."""
        desk = Desk()
        phone, laptop = desk.welcomed("bob"), desk.welcomed("bob", "laptop")
        phone.say("send", id="m1", to="bob", data=1)
        assert phone.heard() == []
        message = laptop.only()
        assert message["from"] == "bob"
        laptop.say("ack", seq=message["seq"])
        assert phone.only()["status"] == "delivered"

    def test_to_a_user_of_another_node(self) -> None:
        """Over the link, with all that the owner must know; its word is the receipt."""
        desk = Desk(away=("bob",))
        alice = desk.welcomed("alice")
        alice.say("send", id="m1", to="bob", data={"x": 1}, ttl_s=3)
        [send] = desk.link.items
        assert isinstance(send, peer.Send)
        assert (send.sender, send.id, send.to, send.data) == ("alice", "m1", "bob", b'{"x":1}')
        assert (send.again, send.session, send.ttl_ms) == (False, "", 3000)
        desk.from_peer(peer.Receipt(send.ref, "delivered", "pong", None, None))
        assert alice.only() == {"type": "receipt", "id": "m1", "status": "delivered", "by": "pong"}
        desk.from_peer(peer.Receipt(send.ref, "failed", None, None, None))
        assert alice.heard() == []

    def test_a_session_that_is_gone_is_told_nothing(self) -> None:
        """Its messages are no longer held; whoever is behind it sends them again."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob")
        alice.say("send", id="m1", to="bob", data=1)
        alice.hang_up(CloseCode.ABNORMAL)
        assert len(desk.pending) == 0
        bob.say("ack", seq=bob.only()["seq"])
        assert alice.heard() == []
