"""A client's rooms as decisions: what is joined, left and published, and what an answer changes."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.client.messages import RoomEnded, RoomGap
from ring.client.rooms import Asked, Frame
from ring.protocol import client as wire
from ring.protocol.codes import ErrorCode
from tests.client.room_desk import TOO_MANY, UNAVAILABLE, Desk, kinds


def test_join_is_settled_by_its_answer(desk: Desk) -> None:
    """Asked for once; what comes of the room is taken in."""
    asked = desk.join("a")
    [frame] = desk.written()
    assert isinstance(frame, wire.Join)
    assert (desk.settled, desk.rooms.wanted) == ([], frozenset())

    desk.answer(frame)
    assert (desk.settled, asked.answered, asked.refusal) == (["join"], True, None)
    assert desk.rooms.wanted == {"a"}
    assert desk.written() == []
    assert desk.say("a")
    assert not desk.say("b")
    assert desk.came() == ["a"]


def test_messages_before_the_answer_are_taken_in(desk: Desk) -> None:
    """A node that has the room already may send before it says so."""
    desk.join("a")
    desk.written()

    assert desk.say("a")


@pytest.mark.parametrize("refusal", [UNAVAILABLE, TOO_MANY])
def test_refused_join_is_over(desk: Desk, refusal: tuple[ErrorCode, str]) -> None:
    """The caller is told, and decides: nothing is asked for again, not by another session either."""
    asked = desk.join("a")
    desk.answer(desk.written()[0], refusal)

    assert asked.refusal == refusal
    assert desk.rooms.wanted == frozenset()
    assert not desk.say("a")
    assert desk.again() == []
    assert desk.came() == []


def test_join_of_a_joined_room_is_done_at_once(desk: Desk) -> None:
    """There is nothing to ask for."""
    desk.be_in("a")
    asked = desk.join("a")

    assert asked.settled
    assert asked.refusal is None
    assert desk.written() == []


def test_join_under_way_is_shared(desk: Desk) -> None:
    """Who joins the same room meanwhile gets the same answer."""
    first, second = desk.join("a", "first"), desk.join("a", "second")
    [frame] = desk.written()
    desk.answer(frame, TOO_MANY)

    assert desk.settled == ["first", "second"]
    assert first.refusal == second.refusal == TOO_MANY


def test_leave_is_settled_by_its_answer(desk: Desk) -> None:
    """From the call on nothing of the room comes, nor what waits of it."""
    desk.be_in("a", "b")
    desk.say("a")
    desk.say("b")
    asked = desk.leave("a")
    assert desk.rooms.wanted == {"b"}
    assert not desk.say("a")
    assert desk.came() == ["b"]
    [frame] = desk.written()
    assert isinstance(frame, wire.Leave)
    assert desk.settled == []

    desk.answer(frame)
    assert (desk.settled, asked.refusal) == (["leave"], None)
    assert kinds(desk.again()) == [("Join", "b")]


def test_leaving_what_was_not_joined_is_refused(desk: Desk) -> None:
    """No node need be asked; and leaving twice is the same."""
    desk.be_in("a")
    desk.leave("a")

    for room in "ab":
        asked = desk.leave(room, f"again {room}")
        assert asked.refusal == (ErrorCode.NOT_JOINED, f"leave: {room} was not joined")
    assert kinds(desk.written()) == [("Leave", "a")]


def test_leave_overtakes_a_join_that_was_not_written(desk: Desk) -> None:
    """Neither is asked for; the join fails, since it is not so."""
    joined, left = desk.join("a"), desk.leave("a")

    assert desk.written() == []
    assert joined.refusal == (ErrorCode.NOT_JOINED, "join: a was left meanwhile")
    assert (left.answered, left.refusal) == (True, None)


def test_leave_waits_for_the_join_under_way(desk: Desk) -> None:
    """What the node grants meanwhile is taken back."""
    joined = desk.join("a")
    [join] = desk.written()
    left = desk.leave("a")
    assert joined.refusal is not None
    assert desk.settled == ["join"]
    assert desk.written() == []
    desk.answer(join)
    [leave] = desk.written()
    assert kinds([leave]) == [("Leave", "a")]
    desk.answer(leave)

    assert desk.settled == ["join", "leave"]
    assert left.refusal is None


def test_leave_is_done_if_the_join_under_way_is_refused(desk: Desk) -> None:
    """There is nothing to leave then."""
    desk.join("a")
    [join] = desk.written()
    left = desk.leave("a")
    desk.answer(join, UNAVAILABLE)

    assert (left.answered, left.refusal) == (True, None)
    assert desk.written() == []


@pytest.mark.parametrize("written", [False, True])
def test_join_after_a_leave_under_way(desk: Desk, written: bool) -> None:
    """Before the leave is written there is nothing to do; after it the room is joined anew."""
    desk.be_in("a")
    left = desk.leave("a")
    frames = desk.written() if written else []
    joined = desk.join("a")
    assert left.settled is joined.settled is not written
    for frame in frames:
        assert desk.written() == []
        desk.answer(frame)
    for frame in desk.written():
        desk.answer(frame)

    assert (left.refusal, joined.refusal) == (None, None)
    assert joined.answered
    assert desk.rooms.wanted == {"a"}
    assert desk.written() == []


def test_join_after_a_leave_of_a_join_under_way(desk: Desk) -> None:
    """The answer that is to come counts for the last wish."""
    desk.join("a", "first")
    [join] = desk.written()
    left, joined = desk.leave("a"), desk.join("a", "second")
    assert left.settled
    desk.answer(join)

    assert joined.settled
    assert joined.refusal is None
    assert desk.written() == []


def test_refused_leave_is_tried_again_if_it_may_succeed(desk: Desk) -> None:
    """The node would go on sending else."""
    desk.be_in("a")
    asked = desk.leave("a")
    desk.answer(desk.written()[0], (ErrorCode.RATE_LIMITED, "slow down"))
    assert desk.written() == []
    assert desk.rooms.next_at == 1

    desk.now = 1
    [frame] = desk.written()
    assert not asked.settled
    desk.answer(frame, (ErrorCode.NOT_JOINED, "already out"))
    assert (asked.answered, asked.refusal) == (True, None)


def test_leave_that_is_refused_for_good_is_over(desk: Desk) -> None:
    """The caller is told; nothing comes all the same."""
    desk.be_in("a")
    asked = desk.leave("a")
    desk.answer(desk.written()[0], (ErrorCode.UNKNOWN_TYPE, "an old node"))

    assert asked.refusal == (ErrorCode.UNKNOWN_TYPE, "an old node")
    assert not desk.say("a")
    assert desk.again() == []


def test_refused_leave_of_a_room_that_is_wanted_again(desk: Desk) -> None:
    """It is as if it had not been left."""
    desk.be_in("a")
    left = desk.leave("a")
    [frame] = desk.written()
    joined = desk.join("a")
    desk.answer(frame, (ErrorCode.RATE_LIMITED, "slow down"))

    assert joined.settled
    assert joined.refusal is left.refusal is None
    assert desk.rooms.wanted == {"a"}
    assert desk.written() == []


def test_publishing_keeps_its_order(desk: Desk) -> None:
    """Written as called, each with an id of its own, and settled by its answer."""
    first, second = desk.publish("a", "1"), desk.publish("b", "2", echo=True)
    frames = desk.written()
    assert [
        (frame.room, bytes(frame.data), frame.echo) for frame in frames if isinstance(frame, wire.Publish)
    ] == [
        ("a", b"1", False),
        ("b", b"2", True),
    ]
    assert frames[0].id != frames[1].id
    desk.answer(frames[1], UNAVAILABLE)
    desk.answer(frames[0])

    assert desk.settled == ["publish 2", "publish 1"]
    assert (first.refusal, second.refusal) == (None, UNAVAILABLE)


def test_publishing_is_not_repeated(desk: Desk) -> None:
    """At most once: what was written and not answered may have been published; what was not written waits."""
    desk = Desk(in_flight=1)
    written, waiting = desk.publish("a", "1"), desk.publish("a", "2")
    desk.written()
    [frame] = desk.again()

    assert written.refusal is not None
    assert written.refusal[0] is ErrorCode.ROOMS_UNAVAILABLE
    assert "may have been published" in written.refusal[1]
    assert not waiting.settled
    assert isinstance(frame, wire.Publish)
    assert bytes(frame.data) == b"2"


def test_abandoned_publishing_is_not_written(desk: Desk) -> None:
    """Nor is anything the worse for it if it was."""
    early, late = desk.publish("a", "1"), desk.publish("a", "2")
    desk.rooms.abandon(early)
    [frame] = desk.written()
    desk.rooms.abandon(late)
    desk.answer(frame)

    assert desk.settled == ["publish 2"]


@pytest.mark.parametrize("written", [False, True])
def test_abandoned_join_joins_nothing(desk: Desk, written: bool) -> None:
    """If it was asked for, and is granted, it is taken back."""
    asked = desk.join("a")
    frames = desk.written() if written else []
    desk.rooms.abandon(asked)
    for frame in frames:
        desk.answer(frame)

    assert kinds(desk.written()) == ([("Leave", "a")] if written else [])
    assert desk.again() == []
    assert desk.settled == []


def test_abandoned_join_of_several_keeps_the_others(desk: Desk) -> None:
    """Nor does it end a membership that there was."""
    desk.be_in("b")
    frames = desk.again()
    first, second, third = desk.join("a", "first"), desk.join("a", "second"), desk.join("b", "third")
    for asked in (first, third):
        desk.rooms.abandon(asked)
    for frame in [*frames, *desk.written()]:
        desk.answer(frame)
    desk.rooms.abandon(second)  # that is too late

    assert desk.settled == ["second"]
    assert desk.rooms.wanted == {"a", "b"}


def test_abandoned_leave_leaves_all_the_same(desk: Desk) -> None:
    """It was the wish."""
    desk.be_in("a", "b")
    desk.rooms.abandon(desk.leave("b"))

    assert kinds(desk.written()) == [("Leave", "b")]


def test_everybody_is_told_of_the_end(desk: Desk) -> None:
    """Whatever they wait for; they see that there was no answer."""
    desk.be_in("a")
    waiting = [desk.leave("a"), desk.join("b"), desk.publish("b", "1")]
    desk.written()
    waiting.append(desk.publish("b", "2"))
    desk.rooms.clear()

    assert all(asked.settled and not asked.answered for asked in waiting)
    assert desk.rooms.wanted == frozenset()


def test_strange_answers_are_known_as_such(desk: Desk) -> None:
    """They may answer something else."""
    assert not desk.rooms.answer("strange", None, 0)


@dataclass
class Node:
    """A node, as far as rooms go: it answers what it was asked in its order, and remembers who is in."""

    members: set[str] = field(default_factory=set)
    asked: list[Frame] = field(default_factory=list)

    def answer(self, desk: Desk, mood: str) -> None:
        """Answers the oldest question."""
        if not self.asked:
            return
        frame = self.asked.pop(0)
        refusal = {"yes": None, "later": UNAVAILABLE, "no": TOO_MANY}[mood]
        if isinstance(frame, wire.Leave):
            if frame.room not in self.members:
                refusal = (ErrorCode.NOT_JOINED, "not joined")
            elif mood == "yes":
                self.members.remove(frame.room)
            else:
                refusal = UNAVAILABLE  # a node has no reason to hold anybody back for good
        elif mood == "yes":
            self.members.add(frame.room)
        desk.answer(frame, refusal)


ROOM = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.sampled_from(["join", "leave", "abandon"]), ROOM),
    st.tuples(st.just("answer"), st.sampled_from(["yes", "yes", "later", "no"])),
    st.tuples(st.sampled_from(["write", "cut", "wait"]), st.just("")),
)


@given(st.lists(STEPS, max_size=60))
def test_in_the_end_the_session_is_where_the_application_wants(steps: list[tuple[str, str]]) -> None:
    """Whatever is joined, left, abandoned, refused and cut, in any order: once the node grants everything, it
    has exactly the rooms whose last join stands, everybody who waited is told, and nothing came of others."""
    desk, node = Desk(in_flight=2), Node()
    waiting: list[tuple[str, Asked]] = []
    for what, argument in steps:
        if what == "join":
            waiting.append((argument, desk.join(argument)))
        elif what == "leave":
            waiting.append((argument, desk.leave(argument)))
        elif what == "abandon":
            for room, asked in waiting:
                if room == argument:
                    desk.rooms.abandon(asked)
            waiting = [(room, asked) for room, asked in waiting if room != argument]
        elif what == "answer":
            node.answer(desk, argument)
        elif what == "write":
            node.asked += desk.written()
        elif what == "wait":
            desk.now += 10
        else:
            desk.rooms.cut()
            node = Node()
            desk.rooms.begin(2)
        joined = {
            room
            for room in node.members
            if not any(isinstance(frame, wire.Leave) and frame.room == room for frame in node.asked)
        }
        for room in joined:
            desk.say(room)
    for _ in range(20):
        node.asked += desk.written()
        node.answer(desk, "yes")
        desk.now += 10

    assert desk.written() == []
    assert node.members == desk.rooms.wanted
    assert all(asked.settled and asked.answered for _, asked in waiting)
    last: dict[object, object] = {}
    for one in desk.came():
        last[one.room if isinstance(one, RoomGap | RoomEnded) else one] = one
    # Of a room that it is not in the last that came is its end; what it left itself is not heard of.
    assert {room for room, one in last.items() if isinstance(one, RoomEnded)} == set(last) - node.members
