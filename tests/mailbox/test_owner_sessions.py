"""Sessions at the owner: replaced, attached again, suspended with their gateway, gone."""

from ring.protocol.codes import CloseCode, ErrorCode
from tests.mailbox.office import EPOCH, Office


class TestSameDevice:
    """One user's device has one session."""

    def test_a_new_session_replaces_the_old_one(self) -> None:
        """The old one is closed 4009 and gets nothing more; what it had not acknowledged comes again."""
        office = Office()
        old = office.attach("phone", since_ms=1)
        laptop = office.attach("laptop")
        office.send("m1")
        new = office.attach("phone", since_ms=2)
        office.send("m2")
        assert old.closed == CloseCode.REPLACED
        assert (old.ids, new.ids, laptop.ids) == (["m1"], ["m1", "m2"], ["m1", "m2"])
        assert new.marked == ["m1"]
        assert laptop.closed is None

    def test_a_new_session_replaces_one_with_a_faster_clock(self) -> None:
        """Gateways' clocks differ: who connects now is the later one, whatever its gateway's clock says."""
        office = Office()
        old = office.attach("phone", since_ms=9, gateway="g1", handle=1)
        new = office.attach("phone", since_ms=3)
        assert (old.closed, new.closed) == (CloseCode.REPLACED, None)

    def test_an_old_session_that_moves_loses_to_a_later_one(self) -> None:
        """After a change of the ring attachments come in any order: the later connection stays."""
        office = Office()
        later = office.attach("phone", since_ms=9, sent=(3, 1), acked=(3, 1))
        earlier = office.attach("phone", since_ms=3, sent=(3, 1), acked=(3, 1))
        assert (earlier.closed, earlier.attachment) == (CloseCode.REPLACED, None)
        assert later.closed is None
        office.send("m1")
        assert later.ids == ["m1"]

    def test_a_later_session_that_moves_replaces_an_earlier_one(self) -> None:
        """The same in the other order."""
        office = Office()
        earlier = office.attach("phone", since_ms=3, sent=(3, 1), acked=(3, 1))
        later = office.attach("phone", since_ms=9, sent=(3, 1), acked=(3, 1))
        assert (earlier.closed, later.closed) == (CloseCode.REPLACED, None)

    def test_one_whose_link_is_down_is_replaced_in_silence(self) -> None:
        """There is no way to tell it; its gateway will be told when it attaches it again."""
        office = Office()
        old = office.attach("phone", gateway="g", handle=1, since_ms=3)
        office.mailboxes.suspend("g")
        office.attach("phone", since_ms=9)
        assert old.closed is None
        back = office.attach("phone", gateway="g", handle=2, since_ms=3, sent=(EPOCH, 0), acked=(EPOCH, 0))
        assert back.closed == CloseCode.REPLACED

    def test_the_same_session_attached_again_is_not_replaced(self) -> None:
        """A gateway names it again after a broken link: it goes on where it was, under the new handle."""
        office = Office()
        first = office.attach(session="s", gateway="g", handle=1)
        office.send("m1")
        again = office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 1), acked=(EPOCH, 0))
        office.send("m2")
        assert first.closed is None
        assert (first.ids, again.ids) == (["m1"], ["m2"])
        assert office.mailboxes.remote("g", 1) is None
        assert office.mailboxes.remote("g", 2) is again.attachment
        again.ack()
        assert [fate[:2] for fate in office.fates] == [("m1", "delivered"), ("m2", "delivered")]


class TestAttachedAgain:
    """A session that an earlier owner, or an earlier link, has brought up to `sent`."""

    def test_it_goes_on_behind_what_it_had(self) -> None:
        """What it was sent is not sent again, and can still be acknowledged."""
        office = Office()
        office.attach(session="s", gateway="g", handle=1)
        for index in range(4):
            office.send(f"m{index}")
        office.mailboxes.suspend("g")
        back = office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 2), acked=(EPOCH, 1))
        assert back.ids == ["m2", "m3"]
        assert back.marked == []
        assert [fate[0] for fate in office.fates] == ["m0"]
        back.ack((EPOCH, 2))
        assert [fate[0] for fate in office.fates] == ["m0", "m1"]

    def test_its_window_counts_what_it_had_before(self) -> None:
        """Letters and bytes that it has not acknowledged fill the window as if they had been sent here."""
        office = Office()
        office.attach(session="s", gateway="g", handle=1)
        for index in range(400):
            office.send(f"m{index}")
        back = office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 200), acked=(EPOCH, 0))
        assert len(back.got) == 56
        assert back.attachment is not None
        letters = office.box().letters[:256]
        assert back.attachment.flight_bytes == sum(letter.size for letter in letters)

    def test_the_acknowledgements_that_were_lost_count(self) -> None:
        """The attachment carries the cursor: what the link lost settles now, as the session acknowledges."""
        office = Office()
        office.attach(session="s", gateway="g", handle=1, by="pong")
        office.send("m1")
        office.mailboxes.suspend("g")
        office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 1), acked=(EPOCH, 1), by="pong")
        assert office.fates == [("m1", "delivered", "pong", None)]

    def test_without_a_word_on_acknowledgements_nothing_is_settled(self) -> None:
        """`acked` may be missing."""
        office = Office()
        office.attach(session="s", gateway="g", handle=1)
        office.send("m1")
        office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 1))
        assert office.fates == []


class TestGateways:
    """Sessions of other nodes, known by gateway and handle."""

    def test_they_acknowledge_and_leave_by_handle(self) -> None:
        """Handles of sessions that are gone, or of gateways never heard of, mean nothing."""
        office = Office()
        office.attach("phone", gateway="g", handle=1)
        office.attach("laptop", gateway="g", handle=2)
        office.send("m1")
        office.mailboxes.acknowledge_remote("g", 9, EPOCH, 1, "client")
        office.mailboxes.acknowledge_remote("h", 1, EPOCH, 1, "client")
        assert office.fates == []
        office.mailboxes.acknowledge_remote("g", 2, EPOCH, 1, "pong")
        assert office.fates == [("m1", "delivered", "pong", None)]
        office.mailboxes.detach_remote("g", 1, clean=True)
        office.mailboxes.detach_remote("g", 1, clean=True)
        office.mailboxes.detach_remote("h", 2, clean=True)
        assert [attachment.device for attachment in office.box().attachments] == ["laptop"]
        assert office.mailboxes.remote("g", 1) is None
        assert office.mailboxes.remote("h", 2) is None

    def test_a_link_that_is_down_keeps_the_places(self) -> None:
        """Nothing is sent meanwhile, the user counts as online, and the session goes on when it is back."""
        office = Office()
        seat = office.attach(session="s", gateway="g", handle=1)
        office.mailboxes.suspend("g")
        office.send("m1")
        assert (seat.got, office.fates) == ([], [])
        back = office.attach(session="s", gateway="g", handle=2, sent=(EPOCH, 0), acked=(EPOCH, 0))
        office.mailboxes.reconciled("g")
        assert back.ids == ["m1"]
        assert office.box().attachments == [back.attachment]

    def test_a_link_that_is_down_touches_no_other_gateway(self) -> None:
        """Sessions elsewhere get what comes."""
        office = Office()
        office.attach("phone", gateway="g", handle=1)
        other = office.attach("laptop", gateway="h", handle=1)
        here = office.attach("tablet")
        office.mailboxes.suspend("g")
        office.mailboxes.suspend("never seen")
        office.send("m1")
        assert (other.ids, here.ids) == (["m1"], ["m1"])

    def test_a_session_that_is_not_named_again_has_ended(self) -> None:
        """Its client may come back elsewhere: the user is waited for, as after any broken connection."""
        office = Office()
        office.attach(gateway="g", handle=1)
        office.mailboxes.suspend("g")
        office.mailboxes.reconciled("g")
        office.send("m1")
        assert (office.box().attachments, office.fates) == ([], [])
        office.pass_time(2.1)
        assert office.code("m1") is ErrorCode.OFFLINE

    def test_reconciling_with_an_unknown_gateway_is_nothing(self) -> None:
        """A node without sessions here says so too."""
        office = Office()
        seat = office.attach(gateway="g", handle=1)
        office.mailboxes.reconciled("h")
        office.mailboxes.reconciled("g")
        assert office.box().attachments == [seat.attachment]

    def test_a_gateway_that_is_gone_takes_its_sessions(self) -> None:
        """They are broken, not closed: linger waits for their users."""
        office = Office()
        office.attach("phone", gateway="g", handle=1)
        here = office.attach("laptop")
        assert office.mailboxes.gateways() == ["g"]
        office.mailboxes.forget_gateway("g")
        assert office.mailboxes.gateways() == []
        assert office.box().attachments == [here.attachment]

    def test_a_gateway_that_lives_again_loses_the_sessions_of_its_earlier_life(self) -> None:
        """Those of the present life stay."""
        office = Office()
        office.attach("phone", gateway="g", incarnation="g/1", handle=1)
        new = office.attach("laptop", gateway="g", incarnation="g/2", handle=2)
        office.mailboxes.forget_gateway("g", but="g/2")
        assert office.box().attachments == [new.attachment]
        assert office.mailboxes.gateways() == ["g"]

    def test_forgetting_an_unknown_gateway_is_nothing(self) -> None:
        """A first link to a node forgets what it has never had."""
        Office().mailboxes.forget_gateway("g", but="g/1")


class TestTheEnd:
    """A session that leaves, or whose mailbox does."""

    def test_leaving_twice_is_leaving_once(self) -> None:
        """A session that is no longer attached changes nothing, nor does one whose mailbox is gone."""
        office = Office()
        seat = office.attach()
        seat.leave(clean=True)
        office.attach()
        seat.leave(clean=False)
        assert len(office.box().attachments) == 1
        other = office.attach(user="carol")
        office.mailboxes.drop(office.box("carol"))
        other.leave(clean=False)
        assert "carol" not in office.mailboxes.boxes

    def test_acknowledging_in_a_mailbox_that_is_gone_is_nothing(self) -> None:
        """The acknowledgement was under way while the mailbox was handed over."""
        office = Office()
        seat = office.attach()
        office.send("m1")
        office.mailboxes.drop(office.box())
        seat.ack()
        assert seat.attachment is not None
        office.mailboxes.start(seat.attachment)
        assert office.fates == []

    def test_a_mailbox_that_is_dropped_forgets_its_sessions_and_its_timer(self) -> None:
        """Handed over it is another node's: nothing is told, nothing is waited for."""
        office = Office()
        office.attach(gateway="g", handle=1)
        office.send("m1")
        office.mailboxes.drop(office.box())
        assert office.mailboxes.remote("g", 1) is None
        office.pass_time(3)
        assert office.fates == []

    def test_a_session_that_moves_is_waited_for(self) -> None:
        """`release`: it attaches to another owner, and the mailbox follows; until then nobody is offline."""
        office = Office()
        seat = office.attach()
        assert seat.attachment is not None
        office.mailboxes.release(seat.attachment)
        office.send("m1")
        assert office.fates == []
        office.mailboxes.release(seat.attachment)  # a second time it is nobody's
        office.mailboxes.drop(office.box())
        office.mailboxes.release(seat.attachment)
        assert office.mailboxes.boxes == {}


class TestTooSlow:
    """A session that is so far behind that what it would need next is no longer kept."""

    def test_it_is_closed_and_comes_back_to_a_gap(self) -> None:
        """4008; the client that resumes where it was is told that something is missing."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(600):
            office.send(f"m{index}")
            quick.ack()
        assert (len(slow.got), slow.closed) == (256, None)
        slow.ack()
        assert slow.closed == CloseCode.SLOW_CONSUMER
        assert (len(slow.got), len(quick.got)) == (256, 600)
        back = office.attach("slow", resume=slow.got[-1][1].seq)
        assert (back.resumed, back.closed, back.got) == ("gap", None, [])

    def test_one_that_is_closed_for_it_holds_up_no_other(self) -> None:
        """The message that finds one session too slow reaches the others in the same step."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(300):
            office.send(f"m{index}")
            quick.ack()
        office.pass_time(61)  # they are forgotten while the slow one sits there
        office.send("m")
        assert slow.closed == CloseCode.SLOW_CONSUMER
        assert quick.ids[-1] == "m"

    def test_the_user_is_waited_for(self) -> None:
        """The client reads slowly, and will be back: like one whose connection broke."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(600):
            office.send(f"m{index}")
            quick.ack()
        quick.leave(clean=True)
        slow.ack()
        assert slow.closed == CloseCode.SLOW_CONSUMER
        office.send("next")
        assert office.told("next") == []
        back = office.attach("slow")
        assert back.ids == ["next"]

    def test_a_mailbox_that_loses_its_last_session_so_is_forgotten_too(self) -> None:
        """Nothing stays of a user who never comes back."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(600):
            office.send(f"m{index}")
            quick.ack()
        quick.leave(clean=True)
        office.pass_time(61)  # the letters are forgotten while the slow one sits there
        assert office.box().letters == []
        slow.ack()
        assert slow.closed == CloseCode.SLOW_CONSUMER
        office.pass_time(3)
        assert office.mailboxes.boxes == {}
