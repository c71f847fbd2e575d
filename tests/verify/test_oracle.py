"""The oracle on histories that are played to it: every verdict, and what excuses it."""

import pytest

from ring.verify.record import Key, Promise
from tests.verify.witness import LONG, Play


@pytest.fixture
def play() -> Play:
    """Alice and Bob, connected; nothing has been sent."""
    return Play()


class TestFates:
    def test_delivered(self, play: Play) -> None:
        """What was sent, came, was acknowledged and then receipted breaks nothing; it is counted."""
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.deliver(one, two)
        assert play.verdict() == []
        row = play.oracle.rows[0]
        assert (row.sent, row.delivered, row.queued, row.lost, row.doubled) == (2, 2, 0, 0, 0)

    def test_queued_and_fetched(self, play: Play) -> None:
        """A stored message that comes later is where it should be."""
        key = play.send()
        play.queue(key)
        play.later(30.0)
        play.bring(key)
        assert play.verdict() == []
        assert play.oracle.rows[0].queued == 1

    @pytest.mark.parametrize("status", ["delivered", "queued"])
    def test_lost(self, play: Play, status: str) -> None:
        """What a receipt promised and nobody got is lost; its story tells all that is known."""
        key = play.send()
        if status == "delivered":
            play.bring(key, to=play.enter("bob", "app", library=True), acknowledged=False)
            play.oracle._messages[key].taken.clear()  # its application never got it
            play.acknowledge(play.bob)
            play.oracle._messages[key].copies[0].acknowledged_at = play.now
            play.deliver(key)
        else:
            play.queue(key)
        breach = play.breach()
        assert (breach.promise, breach.key) == (Promise.KEPT, key)
        assert breach.story[0].endswith("sent through n1 (session n1.1)")
        told = breach.story[: breach.story.index("at bob/raw, lately:")]
        assert f"receipt {status}" in told[-1]
        assert play.oracle.rows[0].lost == 1

    def test_to_one_of_two_devices(self, play: Play) -> None:
        """One device is enough for `queued`: the other was not there."""
        phone = play.enter("bob", "phone")
        play.oracle.ended(phone, play.now, "lost")
        key = play.send()
        play.queue(key)
        play.bring(key)
        assert play.verdict() == []

    def test_missing(self, play: Play) -> None:
        """What is owed is known while there is still time for it to come."""
        key = play.send()
        assert (play.oracle.waits_since(play.now + 1), play.oracle.missing) == (1, 0)
        play.queue(key)
        assert (play.oracle.waits_since(play.now + 1), play.oracle.missing) == (0, 1)
        play.bring(key)
        assert play.oracle.missing == 0

    def test_failed_in_a_fault(self, play: Play) -> None:
        """A message may fail while something is broken; it need not come then, and is counted by its code."""
        fault = play.fault()
        play.fail(play.send())
        play.heal(fault)
        assert play.verdict() == []
        assert play.oracle.rows[0].failed == {"owner_unavailable": 1}

    @pytest.mark.parametrize("planned", [None, "stop"])
    def test_failed_in_calm(self, play: Play, planned: str | None) -> None:
        """None may fail in the steady state, nor through a planned change."""
        fault = play.fault(planned, planned=True) if planned else None
        play.fail(play.send())
        if fault:
            play.heal(fault)
        assert play.verdict() == [Promise.CARRIED_OUT]

    def test_aftershock(self, play: Play) -> None:
        """A fault excuses what was sent shortly after it, and nothing later."""
        fault = play.fault()
        play.later()
        fault.healed = play.now
        play.later(1.0)
        play.fail(play.send())
        play.later(5.0)
        play.fail(play.send())
        assert play.verdict() == [Promise.CARRIED_OUT]


class TestForgotten:
    def test_stored_when_redis_was_emptied(self, play: Play) -> None:
        """What was queued when Redis lost its data is not lost by the cluster: it has a column of its own."""
        key = play.send()
        play.queue(key)
        play.heal(play.fault("redis-empty", forgets=True))
        assert play.oracle.missing == 0
        assert play.verdict() == []
        assert (play.oracle.rows[0].forgotten, play.oracle.rows[0].lost) == (1, 0)

    def test_sent_afterwards(self, play: Play) -> None:
        """What was sent after it could not be in there."""
        play.heal(play.fault("redis-empty", forgets=True))
        play.queue(play.send())
        assert play.verdict() == [Promise.KEPT]

    def test_stored_afterwards(self, play: Play) -> None:
        """Nor what was sent before, and stored for the first time long after."""
        key = play.send()
        play.heal(play.fault("redis-empty", forgets=True))
        play.queue(key)
        assert play.verdict() == [Promise.KEPT]

    def test_sent_afterwards_twice(self, play: Play) -> None:
        """However often it was sent."""
        play.heal(play.fault("redis-empty", forgets=True))
        key = play.send()
        play.welcome(play.alice)
        play.write(key, again=True)
        play.queue(key)
        assert play.verdict() == [Promise.KEPT]

    def test_told_afterwards(self, play: Play) -> None:
        """What was sent before and again after it may have been stored before, whatever was told when."""
        key = play.send()
        play.heal(play.fault("redis-empty", forgets=True))
        play.welcome(play.alice)
        play.write(key, again=True)
        play.queue(key)
        assert play.verdict() == []

    @pytest.mark.parametrize("there", ["all the time", "not", "since a moment"])
    def test_what_was_due_before(self, play: Play, there: str) -> None:
        """Somebody who was there should have got it long since: then it was not in Redis any more."""
        if there != "all the time":
            play.oracle.ended(play.bob, play.now, "it goes")
        play.heal(play.fault())
        key = play.send()
        play.queue(key)
        play.later(10.0)
        if there == "since a moment":
            play.welcome(play.bob)
        play.oracle.take_stock(play.now)
        play.heal(play.fault("redis-empty", forgets=True))
        assert play.verdict() == ([Promise.KEPT] if there == "all the time" else [])

    def test_forgotten_once_is_forgotten(self, play: Play) -> None:
        """What one Redis has forgotten is not due before the next does."""
        play.oracle.ended(play.bob, play.now, "it goes")
        play.queue(play.send())
        play.heal(play.fault("redis-empty", forgets=True))
        play.welcome(play.bob)
        play.later(10.0)
        play.oracle.take_stock(play.now)
        play.heal(play.fault("redis-empty", forgets=True))
        assert play.verdict() == []
        assert play.oracle.rows[0].forgotten == 1

    def test_what_was_due_while_something_was_broken(self, play: Play) -> None:
        """Nothing is due then."""
        play.queue(play.send())
        fault = play.fault()
        play.later(10.0)
        play.oracle.take_stock(play.now)
        fault.healed = play.now
        play.heal(play.fault("redis-empty", forgets=True))
        assert play.verdict() == []

    def test_not_by_a_fault_that_keeps_it(self, play: Play) -> None:
        """A Redis that comes back with its data excuses nothing."""
        play.queue(play.send())
        play.heal(play.fault("redis-restart"))
        assert play.verdict() == [Promise.KEPT]

    def test_delivered(self, play: Play) -> None:
        """A message that a client has acknowledged was in no store to be forgotten."""
        app = play.enter("bob", "app", library=True)
        key = play.send()
        play.oracle.arrived(app, play.now, key, "1-1", marked=False)
        play.oracle.acknowledged(app, play.now)
        play.deliver(key)
        play.heal(play.fault("redis-empty", forgets=True))
        assert play.verdict() == [Promise.TAKEN, Promise.KEPT]


class TestReceipts:
    def test_before_it_came(self, play: Play) -> None:
        """`delivered` for what nobody has got yet is a false receipt, though it comes in the end."""
        key = play.send()
        play.deliver(key)
        play.bring(key)
        assert play.verdict() == [Promise.TRUE_RECEIPT]

    def test_before_it_was_acknowledged(self, play: Play) -> None:
        """So is one for what has come and is not acknowledged."""
        key = play.send()
        play.bring(key, acknowledged=False)
        play.deliver(key)
        play.acknowledge()
        assert play.verdict() == [Promise.TRUE_RECEIPT]

    def test_acknowledged_in_part(self, play: Play) -> None:
        """An acknowledgement covers what came up to its sequence."""
        one, two = play.send(), play.send()
        play.bring(one, two, acknowledged=False)
        play.oracle.acknowledged(play.bob, play.now, "1-1")
        play.deliver(one, two)
        assert play.breach().key == two

    def test_acknowledged_in_another_session(self, play: Play) -> None:
        """Of another session it covers nothing."""
        key = play.send()
        play.bring(key, acknowledged=False)
        play.welcome(play.bob)
        play.acknowledge()
        play.deliver(key)
        assert play.verdict() == [Promise.TRUE_RECEIPT]

    def test_acknowledged_by_resuming(self, play: Play) -> None:
        """Who dials and says what he got last has acknowledged it, whatever the node's answer."""
        key = play.send()
        play.bring(key, acknowledged=False)
        play.oracle.ended(play.bob, play.now, "lost")
        play.acknowledge()
        play.deliver(key)
        assert play.verdict() == []

    def test_by_whom(self, play: Play) -> None:
        """A receipt says how it was acknowledged."""
        key = play.send()
        play.bring(key)
        play.deliver(key, by="pong")
        assert play.verdict() == [Promise.TRUE_RECEIPT]

    def test_by_any_device(self, play: Play) -> None:
        """The first device that acknowledges is enough, by whatever means."""
        plain = play.enter("bob", "plain", by="pong")
        key = play.send()
        play.bring(key, acknowledged=False)
        play.bring(key, to=plain)
        play.deliver(key, by="pong")
        assert play.verdict() == []

    def test_twice(self, play: Play) -> None:
        """There is one final answer, even if the second says the same."""
        key = play.send()
        play.bring(key)
        play.deliver(key, key)
        assert play.verdict() == [Promise.ANSWERED_ONCE]

    def test_two_answers(self, play: Play) -> None:
        """Two that differ are named both."""
        key = play.send()
        play.queue(key)
        play.bring(key)
        play.deliver(key)
        assert play.breach().words == "queued first, then delivered"

    def test_long_after(self, play: Play) -> None:
        """A second answer is seen when the message is forgotten already."""
        key = play.send()
        play.bring(key)
        play.deliver(key)
        play.later(LONG)
        play.oracle.judge(play.now)
        play.deliver(key)
        assert play.verdict() == [Promise.ANSWERED_ONCE]

    def test_none(self, play: Play) -> None:
        """A message without any answer is told at the end, if its sender stayed."""
        play.send()
        left = play.send()
        play.oracle.abandoned(left, play.now)
        assert play.verdict() == [Promise.ANSWERED]
        assert play.oracle.rows[0].abandoned == 1

    def test_abandoned_and_answered(self, play: Play) -> None:
        """Who leaves after the answer has given up nothing; an answer that comes later is none too many."""
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.deliver(one)
        for key in (one, two):
            play.oracle.abandoned(key, play.now)
        play.deliver(two)
        assert play.verdict() == []
        assert play.oracle.rows[0].abandoned == 1

    def test_late(self, play: Play) -> None:
        """It comes within the time-out, and a margin."""
        late, in_time = play.send(), play.send()
        play.bring(late, in_time)
        play.later(10.5)
        play.deliver(in_time)
        play.later(1.0)
        play.deliver(late)
        breach = play.breach()
        assert (breach.promise, breach.key) == (Promise.ANSWERED, late)
        assert "11." in breach.words

    def test_late_by_a_frozen_gateway(self, play: Play) -> None:
        """A node that was hit could not answer: the time runs from when it could. The others had to."""
        frozen = play.fault("freeze", victims=("n1",))
        mine, other = play.send(), play.send("bob", play.enter("carol", node="n4"))
        play.bring(mine, other)
        play.later(20.0)
        play.heal(frozen)
        play.deliver(mine, other)
        assert play.breach().key == other

    def test_late_by_a_new_session(self, play: Play) -> None:
        """The time runs from when it was last sent."""
        key = play.send()
        play.bring(key)
        play.later(9.0)
        play.welcome(play.alice, node="n4")
        play.write(key, again=True)
        play.later(9.0)
        play.deliver(key)
        assert play.verdict() == []

    def test_late_to_a_deaf_sender(self, play: Play) -> None:
        """Who does not read cannot see answers: the time runs from when he reads again."""
        key = play.send()
        play.bring(key)
        play.later(30.0)
        play.oracle.deaf("alice", play.now)
        play.deliver(key)
        assert play.verdict() == []

    def test_late_is_told_once(self, play: Play) -> None:
        """However often it is judged."""
        key = play.send()
        play.queue(key)
        play.oracle._messages[key].answers[0].at += 20.0
        for _ in range(3):
            play.later(LONG)
            play.oracle.judge(play.now)
        play.bring(key)
        assert play.verdict() == [Promise.ANSWERED]

    def test_of_the_library(self, play: Play) -> None:
        """What the library tells its application is what the node said, and it tells it."""
        key, other = play.send(), play.send()
        play.bring(key, other)
        play.deliver(key, other)
        play.oracle.returned(key, play.now, "delivered")
        play.oracle.returned(other, play.now, "failed")
        play.oracle.unreturned(other, play.now)
        assert play.verdict() == [Promise.ANSWERED_ONCE, Promise.ANSWERED]


class TestDoubles:
    def test_unmarked(self, play: Play) -> None:
        """A second copy that does not say so is a breach, even in a fault."""
        fault = play.fault()
        key = play.send()
        play.bring(key, key)
        play.deliver(key)
        play.heal(fault)
        assert play.verdict() == [Promise.MARKED]
        assert (play.oracle.rows[0].doubled, play.oracle.rows[0].unmarked) == (1, 1)

    def test_one_is_unmarked(self, play: Play) -> None:
        """The one that is not marked may come last."""
        fault = play.fault()
        key = play.send()
        play.bring(key, marked=True)
        play.bring(key)
        play.bring(key, marked=True)
        play.deliver(key)
        play.heal(fault)
        assert play.verdict() == []
        assert (play.oracle.rows[0].doubled, play.oracle.rows[0].unmarked) == (2, 0)

    def test_in_calm(self, play: Play) -> None:
        """While nothing is broken a marked one in the same session is a breach as well."""
        key = play.send()
        play.bring(key)
        play.bring(key, marked=True)
        play.deliver(key)
        assert play.verdict() == [Promise.ONCE_IN_CALM]

    def test_recipient_connected_again(self, play: Play) -> None:
        """Who connects again may get what he did not acknowledge."""
        key = play.send()
        play.bring(key, acknowledged=False)
        play.welcome(play.bob)
        play.bring(key, marked=True)
        play.deliver(key)
        assert play.verdict() == []

    @pytest.mark.parametrize("resumed", [True, False, "gap"])
    def test_what_was_acknowledged_before_a_resume(self, play: Play, resumed: bool) -> None:
        """It does not come again to a device that was told that it goes on from there."""
        key = play.send()
        play.bring(key)
        play.deliver(key)
        play.welcome(play.bob, resumed=resumed)
        play.bring(key, marked=True)
        assert play.verdict() == ([Promise.ONCE_IN_CALM] if resumed is True else [])

    def test_what_was_not_acknowledged_before_a_resume(self, play: Play) -> None:
        """It may come again: nobody knows that it came."""
        key = play.send()
        play.bring(key, acknowledged=False)
        play.welcome(play.bob, resumed=True)
        play.bring(key, marked=True)
        play.deliver(key)
        assert play.verdict() == []

    def test_sent_again(self, play: Play) -> None:
        """So is one of what was sent again: its fate is remembered. After a fault it may not be."""
        key = play.send()
        play.bring(key)
        play.welcome(play.alice)
        play.write(key, again=True)
        play.bring(key, marked=True)
        play.deliver(key)
        fault, other = play.fault(), play.send()
        play.bring(other)
        play.write(other, again=True)
        play.bring(other, marked=True)
        play.deliver(other)
        play.heal(fault)
        assert play.breach().key == key

    def test_two_devices(self, play: Play) -> None:
        """A copy for each device is no double."""
        phone = play.enter("bob", "phone")
        key = play.send()
        play.bring(key)
        play.bring(key, to=phone)
        play.deliver(key)
        assert play.verdict() == []
        assert play.oracle.rows[0].doubled == 0

    def test_long_after(self, play: Play) -> None:
        """A double of what is forgotten already is still known as one."""
        key = play.send()
        play.bring(key)
        play.deliver(key)
        play.later(LONG)
        play.oracle.judge(play.now)
        play.oracle.begin("kill", play.now)
        play.bring(key)
        assert play.verdict() == [Promise.MARKED]
        assert (play.oracle.rows[0].doubled, play.oracle.rows[1].doubled) == (0, 1)

    def test_to_the_application(self, play: Play) -> None:
        """A library client hands a message out once; the one that follows it knows nothing of that."""
        app = play.enter("bob", "app", library=True)
        key = play.send()
        play.oracle.arrived(app, play.now, key, "1-1", marked=False)
        play.oracle.took(app, play.now, key)
        play.oracle.took(app, play.now, key)
        play.oracle.acknowledged(app, play.now)
        play.deliver(key)
        play.oracle.reborn(app, play.now)
        play.oracle.took(app, play.now, key)
        assert play.verdict() == [Promise.ONCE_TO_APPLICATION]
        assert play.oracle.rows[0].doubled_to_application == 1


class TestOrder:
    def test_overtaken(self, play: Play) -> None:
        """In the steady state no message may come behind a later one of the same sender."""
        one, two = play.send(), play.send()
        play.bring(two, one)
        play.deliver(one, two)
        assert play.verdict() == [Promise.AGAIN_MARKED, Promise.IN_ORDER]
        assert play.oracle.rows[0].reordered == 1

    def test_overtaken_in_a_planned_change(self, play: Play) -> None:
        """Nor through a planned change, not even marked."""
        fault = play.fault("stop", planned=True)
        one, two = play.send(), play.send()
        play.bring(two)
        play.bring(one, marked=True)
        play.deliver(one, two)
        play.heal(fault)
        assert play.verdict() == [Promise.IN_ORDER]

    def test_overtaken_in_a_crash(self, play: Play) -> None:
        """After a crash what is sent again may come late, if it is marked."""
        one, two, three = play.send(), play.send(), play.send()
        fault = play.fault()
        play.bring(three)
        play.bring(one, two, marked=True)
        play.deliver(one, two, three)
        play.heal(fault)
        assert play.verdict() == []
        assert play.oracle.rows[0].reordered == 2

    def test_late_and_unmarked_in_a_crash(self, play: Play) -> None:
        """If it is not, it is a breach."""
        one, two = play.send(), play.send()
        fault = play.fault()
        play.bring(two, one)
        play.deliver(one, two)
        play.heal(fault)
        assert play.verdict() == [Promise.AGAIN_MARKED]

    @pytest.mark.parametrize("holds", [True, False])
    def test_late_in_a_fault_and_nobody_sends_it_again(self, play: Play, holds: bool) -> None:
        """What its sender left on its way through a silent link is late; it was sent once, and says so. After
        a kill nothing is on its way any more: there it can only have been sent again."""
        one, two = play.send(), play.send()
        fault = play.fault("link-silence" if holds else "kill", holds=holds)
        play.bring(two)
        play.oracle.abandoned(one, play.now)
        play.bring(one)
        play.deliver(two)
        play.heal(fault)
        assert play.verdict() == ([] if holds else [Promise.AGAIN_MARKED])
        assert play.oracle.rows[0].reordered == 1

    def test_the_late_that_nobody_sends_again_are_no_measure(self, play: Play) -> None:
        """Those that are sent again keep an order of their own."""
        one, two, three = play.send(), play.send(), play.send()
        fault = play.fault("link-silence", holds=True)
        play.bring(three)
        play.oracle.abandoned(two, play.now)
        play.bring(two)
        play.bring(one, marked=True)
        play.deliver(one, three)
        play.heal(fault)
        assert play.verdict() == []

    def test_late_in_calm_and_nobody_sends_it_again(self, play: Play) -> None:
        """In calm nothing excuses it."""
        one, two = play.send(), play.send()
        play.bring(two)
        play.oracle.abandoned(one, play.now)
        play.bring(one)
        play.deliver(two)
        assert set(play.verdict()) == {Promise.IN_ORDER, Promise.AGAIN_MARKED}

    def test_order_of_the_late(self, play: Play) -> None:
        """What is sent again keeps its own order."""
        one, two, three = play.send(), play.send(), play.send()
        fault = play.fault()
        play.bring(three)
        play.bring(two, one, marked=True)
        play.deliver(one, two, three)
        play.heal(fault)
        assert play.verdict() == [Promise.AGAIN_MARKED]
        assert "#1, which was late too" in play.oracle.breaches()[0].words

    def test_sent_after_the_crash(self, play: Play) -> None:
        """A crash excuses only what lived in it."""
        play.heal(play.fault())
        one, two = play.send(), play.send()
        play.bring(two)
        play.bring(one, marked=True)
        play.deliver(one, two)
        assert play.verdict() == [Promise.IN_ORDER]

    def test_of_two_senders(self, play: Play) -> None:
        """There is no order between senders."""
        carol = play.enter("carol")
        one, two = play.send(), play.send("bob", carol)
        play.bring(two, one)
        play.deliver(one, two)
        assert play.verdict() == []

    def test_to_the_application(self, play: Play) -> None:
        """An application gets them in order as well."""
        app = play.enter("bob", "app", library=True)
        one, two = play.send(), play.send()
        for number, key in enumerate((one, two)):
            play.oracle.arrived(app, play.now, key, f"1-{number}", marked=False)
        for key in (two, one):
            play.oracle.took(app, play.now, key)
        play.acknowledge(app)
        play.deliver(one, two)
        assert play.verdict() == [Promise.IN_ORDER]

    def test_of_what_is_forgotten(self, play: Play) -> None:
        """A message that comes when it has long been settled comes late, and in calm that is a breach."""
        one, two = play.send(), play.send()
        play.bring(two)
        fault = play.fault()
        play.fail(one)
        play.deliver(two)
        play.heal(fault)
        play.later(LONG)
        play.oracle.judge(play.now)
        play.bring(one, marked=True)
        assert Promise.IN_ORDER in play.verdict()


class TestPassedOver:
    def test_there_all_the_time(self, play: Play) -> None:
        """A device that was connected gets what the others get."""
        phone = play.enter("bob", "phone")
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.bring(two, to=phone)
        play.deliver(one, two)
        breach = play.breach()
        assert (breach.promise, breach.key) == (Promise.NOT_PASSED_OVER, one)
        assert breach.words.startswith("bob/phone")

    @pytest.mark.parametrize(("resumed", "broken"), [(True, True), ("gap", False), (False, False)])
    def test_resumed(self, play: Play, resumed: bool, broken: bool) -> None:
        """One that was away gets what it missed, or is told of the gap."""
        phone = play.enter("bob", "phone")
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.welcome(phone, resumed=resumed)
        play.bring(two, to=phone)
        play.deliver(one, two)
        assert play.verdict() == [Promise.NOT_PASSED_OVER] * broken

    def test_before_it_came(self, play: Play) -> None:
        """Of what was sent before it came for the first time, it need get nothing."""
        one = play.send()
        play.bring(one)
        play.later()
        phone = play.enter("bob", "phone")
        two = play.send()
        play.bring(two)
        play.bring(two, to=phone)
        play.deliver(one, two)
        assert play.verdict() == []

    def test_in_a_fault(self, play: Play) -> None:
        """When an owner dies, what one device has acknowledged may never come to the others."""
        phone = play.enter("bob", "phone")
        fault = play.fault()
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.bring(two, to=phone)
        play.deliver(one, two)
        play.heal(fault)
        assert play.verdict() == []

    def test_failed(self, play: Play) -> None:
        """What failed need not come."""
        fault = play.fault()
        one = play.send()
        play.fail(one)
        play.heal(fault)
        two = play.send()
        play.bring(two)
        play.deliver(two)
        assert play.verdict() == []

    def test_comes_in_the_end(self, play: Play) -> None:
        """What comes late was not passed over; but it is out of order."""
        phone = play.enter("bob", "phone")
        one, two = play.send(), play.send()
        play.bring(one, two)
        play.bring(two, to=phone)
        play.bring(one, to=phone, marked=True)
        play.deliver(one, two)
        assert play.verdict() == [Promise.IN_ORDER]

    def test_bounded(self, play: Play) -> None:
        """A stream with a hole of thousands is remembered only as far as there is room."""
        keys = [play.send() for _ in range(3000)]
        play.bring(keys[-1])
        assert len(play.bob.streams["alice"].passed) == 1024


class TestFrames:
    def test_wrong_user(self, play: Play) -> None:
        """A message that comes to another than it was sent to is a breach, and no delivery."""
        key = play.send("carol")
        play.bring(key)
        play.deliver(key)
        assert Promise.TO_ADDRESSEE in play.verdict()

    def test_invented(self, play: Play) -> None:
        """So is one that nobody has sent."""
        play.bring(Key("alice", "bob", 5))
        assert play.verdict() == [Promise.TO_ADDRESSEE]

    def test_before_the_welcome(self, play: Play) -> None:
        """And one outside of any session."""
        key = play.send()
        play.oracle.ended(play.bob, play.now, "lost")
        play.oracle.arrived(play.bob, play.now, key, "1-1", marked=False)
        play.oracle.acknowledged(play.bob, play.now)
        fault = play.fault()
        play.fail(key)
        play.heal(fault)
        assert play.verdict() == [Promise.AS_DOCUMENTED]

    def test_strange(self, play: Play) -> None:
        """What a client cannot make sense of is told in its words."""
        play.oracle.strange(play.bob, play.now, "an odd frame")
        assert play.breach().words == "bob/raw got an odd frame"

    def test_acknowledged_but_not_taken(self, play: Play) -> None:
        """The library acknowledges only what its application has: else a crash of that would lose it."""
        app = play.enter("bob", "app", library=True)
        one, two = play.send(), play.send()
        for number, key in enumerate((one, two)):
            play.oracle.arrived(app, play.now, key, f"1-{number}", marked=False)
        play.oracle.took(app, play.now, one)
        play.oracle.acknowledged(app, play.now, "1-1")
        play.oracle.took(app, play.now, two)
        play.deliver(one, two)
        breach = play.breach()
        assert (breach.promise, breach.key) == (Promise.TAKEN, two)


class TestKeeping:
    def test_forgets_what_is_settled(self, play: Play) -> None:
        """A soak fits in memory: of a settled message only bits are left, of another all is kept."""
        for _ in range(100):
            key = play.send()
            play.bring(key)
            play.deliver(key)
        waiting = play.send()
        play.later(LONG)
        play.oracle.judge(play.now)
        assert list(play.oracle._messages) == [waiting]
        assert play.oracle.waits_since(play.now) == 1
        assert play.oracle.waits_since(0.0) == 0
        play.oracle.abandoned(waiting, play.now)
        assert play.oracle.waits_since(play.now) == 0

    def test_keeps_what_still_happens(self, play: Play) -> None:
        """A message of which something has just become is kept, however old it is."""
        key = play.send()
        play.queue(key)
        play.later(LONG)
        play.bring(key)
        play.oracle.judge(play.now)
        assert list(play.oracle._messages) == [key]

    def test_victims_are_known_in_the_end(self, play: Play) -> None:
        """Whom a fault has hit is known when it is over: until then nobody is blamed for being late."""
        fault = play.fault()
        key = play.send()
        play.bring(key)
        play.later(LONG)
        play.deliver(key)
        play.oracle.judge(play.now)
        fault.victims = ("n1",)
        play.heal(fault)
        assert play.verdict() == []

    def test_waits_for_the_end_of_a_fault(self, play: Play) -> None:
        """While a fault lasts nothing is judged by it."""
        one, two = play.send(), play.send()
        fault = play.fault()
        play.bring(two)
        play.bring(one, marked=True)
        play.oracle.judge(play.now)
        play.heal(fault)
        play.deliver(one, two)
        assert play.verdict() == []

    def test_stories_are_bounded(self, play: Play) -> None:
        """All breaches are counted; the first fifty are told."""
        for _ in range(60):
            play.queue(play.send())
        assert len(play.verdict()) == 50
        assert play.oracle.breached == {Promise.KEPT: 60}
        assert play.oracle.rows[0].breaches == 60

    def test_story(self, play: Play) -> None:
        """A story has the faults near it, and everything in order."""
        key = play.send()
        fault = play.fault("kill", victims=("n2",))
        fault.detail = "seen"
        play.bring(key, acknowledged=False)
        play.welcome(play.alice, node="n4")
        play.write(key, again=True)
        play.bring(key, marked=True)
        play.deliver(key)
        play.heal(fault)
        play.deliver(key)
        lines = [line.partition(" s  ")[2] or line for line in play.breach().story]
        at = lines.index("at bob/raw, lately:")
        assert lines[at:] == [
            "at bob/raw, lately:",
            "welcomed by n2 (session n2.2), owner n3, resumed False",
            "alice>bob#0 came as 1-1",
            "alice>bob#0 came as 1-2, redelivered",
            "acknowledged up to 1-2",
        ]
        assert lines[:at] == [
            "sent through n1 (session n1.1)",
            "--- kill of n2 (seen) begins",
            "came to bob/raw (session n2.2) as 1-1",
            "sent again through n4 (session n4.3)",
            "came to bob/raw (session n2.2) as 1-2, redelivered",
            "acknowledged by bob/raw (session n2.2)",
            "acknowledged by bob/raw (session n2.2)",
            "receipt delivered by client",
            "--- kill is over",
            "receipt delivered by client",
        ]
