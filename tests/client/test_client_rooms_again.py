"""A client's rooms over several sessions: what is asked for again, when, and what the application hears."""

from ring.client.messages import RoomEnded, RoomGap
from tests.client.room_desk import TOO_MANY, UNAVAILABLE, Desk, gaps, kinds


def test_all_rooms_are_joined_again(desk: Desk) -> None:
    """By another session, each of which a gap tells when it is in, and not before."""
    desk.be_in("a", "b")
    frames = desk.again()
    assert kinds(frames) == [("Join", "a"), ("Join", "b")]
    assert desk.rooms.wanted == {"a", "b"}
    assert desk.came() == []

    desk.answer(frames[1])
    assert gaps(desk.came()) == ["b"]
    desk.answer(frames[0])
    assert gaps(desk.came()) == ["a"]
    assert desk.settled == []


def test_gap_comes_before_the_first_message(desk: Desk) -> None:
    """If that comes before the answer, so does the gap; and there is one."""
    desk.be_in("a")
    [frame] = desk.again()
    desk.say("a")
    desk.answer(frame)
    desk.say("a")

    first, *others = desk.came()
    assert isinstance(first, RoomGap)
    assert others == ["a", "a"]


def test_joins_are_paced(desk: Desk) -> None:
    """No more unanswered than the session allows; messages to rooms are counted with them."""
    desk = Desk(in_flight=2)
    rooms = [f"r{number}" for number in range(5)]
    for room in rooms:
        desk.join(room)
    desk.publish("a", "1")
    asked = []
    while frames := desk.written():
        assert len(frames) <= 2
        asked += kinds(frames)
        for frame in frames:
            desk.answer(frame)

    assert asked == [*(("Join", room) for room in rooms), ("Publish", "a")]


def test_rejoining_that_is_refused_is_tried_again(desk: Desk) -> None:
    """With back-off, until it stands; the gap is told then."""
    desk.be_in("a")
    [frame] = desk.again()
    waits = []
    for _ in range(4):
        desk.answer(frame, UNAVAILABLE)
        assert desk.written() == []
        waits.append(desk.rooms.next_at - desk.now)
        desk.now = desk.rooms.next_at
        [frame] = desk.written()
    assert waits == [1, 2, 4, 4]
    assert desk.came() == []
    assert desk.rooms.wanted == {"a"}

    desk.answer(frame)
    assert gaps(desk.came()) == ["a"]
    assert desk.rooms.next_at == float("inf")


def test_another_session_begins_the_back_off_anew(desk: Desk) -> None:
    """Its node may know nothing of what ailed the last one."""
    desk.be_in("a")
    [frame] = desk.again()
    desk.answer(frame, UNAVAILABLE)
    desk.now = 0.5
    [frame] = desk.again()
    desk.answer(frame, UNAVAILABLE)

    assert desk.rooms.next_at == 1.5


def test_room_may_be_left_while_it_is_tried_again(desk: Desk) -> None:
    """Then it is not; what waits for it learns that it was left."""
    desk.be_in("a")
    [frame] = desk.again()
    desk.answer(frame, UNAVAILABLE)
    joined = desk.join("a")
    assert not joined.settled
    left = desk.leave("a")

    assert joined.refusal is not None
    assert left.settled
    desk.now = 100
    assert desk.written() == []


def test_room_that_was_left_and_joined_while_it_is_tried_again(desk: Desk) -> None:
    """Is joined at once, and once."""
    desk.be_in("a")
    [frame] = desk.again()
    desk.answer(frame, UNAVAILABLE)
    desk.leave("a")
    desk.join("a")
    desk.now = 100

    assert kinds(desk.written()) == [("Join", "a")]


def test_rejoining_that_is_refused_for_good_ends_the_membership(desk: Desk) -> None:
    """The application sees it, in the iteration and where it waits; other rooms stay."""
    desk.be_in("a", "b")
    frames = desk.again()
    joined = desk.join("a")
    desk.answer(frames[0], TOO_MANY)
    desk.answer(frames[1])

    assert desk.came() == [RoomEnded("a", *TOO_MANY), RoomGap("b", "the connection was made again")]
    assert joined.refusal == TOO_MANY
    assert desk.rooms.wanted == {"b"}
    assert kinds(desk.again()) == [("Join", "b")]


def test_joining_anew_forgets_how_it_ended(desk: Desk) -> None:
    """What was not taken of an earlier membership is no news of this one."""
    desk.be_in("a")
    desk.answer(desk.again()[0], TOO_MANY)
    desk.be_in("a")

    assert desk.came() == []


def test_explicit_join_is_repeated_after_a_cut(desk: Desk) -> None:
    """It waits for the next session, and misses nothing by it: it was not in yet."""
    asked = desk.join("a")
    desk.written()
    [frame] = desk.again()
    assert not asked.settled
    desk.answer(frame)

    assert asked.refusal is None
    assert desk.came() == []


def test_leave_is_done_by_a_cut(desk: Desk) -> None:
    """The membership went with its session, and the next one does not ask for it."""
    desk.be_in("a")
    asked = desk.leave("a")
    desk.written()
    assert desk.again() == []
    assert (asked.answered, asked.refusal) == (True, None)


def test_join_and_leave_between_two_sessions(desk: Desk) -> None:
    """One waits for the next session, the other has nothing to wait for."""
    desk.be_in("a")
    desk.rooms.cut()
    joined, left = desk.join("b"), desk.leave("a")
    assert left.settled
    assert not joined.settled
    desk.rooms.begin(16)

    assert kinds(desk.written()) == [("Join", "b")]


def test_refused_join_that_was_asked_for_between_two_sessions_is_over(desk: Desk) -> None:
    """However often it was to be looked at: a room that is not wanted any more is not joined."""
    desk = Desk(in_flight=1)
    desk.rooms.cut()
    asked = desk.join("a")
    desk.rooms.begin(1)
    [frame] = desk.written()
    desk.answer(frame, TOO_MANY)

    assert asked.refusal == TOO_MANY
    assert desk.written() == []


def test_told_gap_is_passed_on(desk: Desk) -> None:
    """In its place; of a room that was not joined it concerns nobody."""
    desk.be_in("a")
    desk.say("a")
    assert desk.rooms.gap("a", "you read too slowly")
    desk.say("a")
    assert not desk.rooms.gap("b", "why")

    assert desk.came() == ["a", RoomGap("a", "you read too slowly"), "a"]


def test_gap_told_before_the_session_is_in_comes_once_it_is(desk: Desk) -> None:
    """Who reads elsewhere what was missed would else miss what comes until then."""
    desk.be_in("a")
    [frame] = desk.again()
    assert desk.rooms.gap("a", "Redis was away")
    assert desk.came() == []
    desk.answer(frame)

    assert gaps(desk.came()) == ["a"]
