"""The epoch barrier: when a node hands over, and when it serves what it gained."""

from ring.cluster.barrier import ENTER_S, HOLD_S, NEWS_S, Barrier

NOW = 50.0
A_HAIR = 0.001


def among(*peers: str, epoch: int = 5) -> Barrier:
    """A node that enters `epoch` at `NOW` among these peers, whose links are up."""
    barrier = Barrier()
    for peer in peers:
        barrier.peer_up(peer, f"{peer}/1")
    barrier.begin(epoch, peers, NOW)
    return barrier


def test_before_any_epoch_nothing_is_to_be_done() -> None:
    """A node that has entered no ring owns nothing: it has handed over and waits for nobody."""
    barrier = Barrier()
    assert (barrier.epoch, barrier.handed_over, barrier.released) == (0, True, True)
    assert not barrier.may_hand_over(NOW)
    assert not barrier.may_release(NOW)
    assert barrier.silent() == []


def test_alone_a_node_does_both_at_once() -> None:
    """There is nobody to wait for; each is allowed once."""
    barrier = among()
    assert barrier.may_hand_over(NOW)
    assert barrier.may_release(NOW)
    assert not barrier.may_hand_over(NOW)
    assert not barrier.may_release(NOW)


class TestHandingOver:
    """The old owner's side."""

    def test_it_waits_until_every_peer_has_entered(self) -> None:
        """Then all that was routed to it by earlier epochs has arrived. It is allowed once."""
        barrier = among("b", "c")
        assert not barrier.may_hand_over(NOW)
        barrier.entered("b", 5, NOW)
        assert not barrier.may_hand_over(NOW)
        barrier.entered("c", 4, NOW)
        assert not barrier.may_hand_over(NOW)
        barrier.entered("c", 5, NOW)
        assert barrier.may_hand_over(NOW)
        assert barrier.handed_over
        assert not barrier.may_hand_over(NOW)

    def test_a_peer_ahead_has_entered(self) -> None:
        """It never routes by an earlier epoch again."""
        barrier = among("b")
        barrier.entered("b", 6, NOW)
        assert barrier.may_hand_over(NOW)

    def test_a_silent_peer_is_not_waited_for_longer_than_the_limit(self) -> None:
        """`ENTER_S` after this node entered, whatever the others said."""
        barrier = among("b", "c")
        barrier.entered("b", 5, NOW)
        assert not barrier.may_hand_over(NOW + ENTER_S - A_HAIR)
        assert barrier.may_hand_over(NOW + ENTER_S + A_HAIR)

    def test_strangers_do_not_count(self) -> None:
        """A node that is no member of the epoch is neither waited for nor listened to."""
        barrier = among("b")
        barrier.entered("z", 5, NOW)
        assert not barrier.may_hand_over(NOW)
        barrier.entered("b", 5, NOW)
        assert barrier.may_hand_over(NOW)


class TestServing:
    """The new owner's side."""

    def test_it_waits_until_every_peer_has_handed_over(self) -> None:
        """Whoever lost something to it has said so, and who lost nothing says so too. It is allowed once."""
        barrier = among("b", "c")
        assert barrier.silent() == ["b", "c"]
        barrier.entered("b", 5, NOW)
        barrier.handed("c", 5)
        assert barrier.silent() == ["b"]
        assert not barrier.may_release(NOW)
        barrier.handed("b", 4)
        assert not barrier.may_release(NOW)
        barrier.handed("b", 5)
        assert barrier.silent() == []
        assert barrier.may_release(NOW)
        assert barrier.released
        assert not barrier.may_release(NOW)

    def test_a_peer_is_waited_for_so_long_after_the_first_entered(self) -> None:
        """`HOLD_S`: the old owners' limit and the way are within it."""
        barrier = among("b", "c")
        barrier.entered("b", 5, NOW + 0.5)
        barrier.entered("c", 5, NOW + 0.9)
        assert not barrier.may_release(NOW + 0.5 + HOLD_S - A_HAIR)
        assert barrier.may_release(NOW + 0.5 + HOLD_S + A_HAIR)

    def test_until_a_peer_has_entered_the_old_owners_serve(self) -> None:
        """News of the epoch may be on its way: longer is waited for, but not for ever."""
        barrier = among("b")
        assert not barrier.may_release(NOW + HOLD_S + A_HAIR)
        assert not barrier.may_release(NOW + NEWS_S - A_HAIR)
        assert barrier.may_release(NOW + NEWS_S + A_HAIR)

    def test_the_first_peer_that_entered_late_starts_the_clock(self) -> None:
        """The time counts from its word, even where that is beyond the limit for the first word."""
        barrier = among("b")
        barrier.entered("b", 5, NOW + NEWS_S - 0.1)
        assert not barrier.may_release(NOW + NEWS_S + A_HAIR)
        assert barrier.may_release(NOW + NEWS_S - 0.1 + HOLD_S + A_HAIR)

    def test_who_had_entered_before_counts_from_the_beginning(self) -> None:
        """A peer that was faster than this node: the clock starts when this node enters."""
        barrier = Barrier()
        barrier.peer_up("b", "b/1")
        barrier.entered("b", 5, NOW - 3)
        barrier.begin(5, ["b", "c"], NOW)
        assert not barrier.may_release(NOW + HOLD_S - A_HAIR)
        assert barrier.may_release(NOW + HOLD_S + A_HAIR)

    def test_what_a_peer_or_stranger_says_of_other_epochs_starts_no_clock(self) -> None:
        """An earlier epoch, or a node that is no member."""
        barrier = among("b")
        barrier.entered("b", 4, NOW)
        barrier.entered("z", 5, NOW)
        assert not barrier.may_release(NOW + HOLD_S + A_HAIR)

    def test_who_handed_over_ahead_has_handed_over(self) -> None:
        """It may have been there first."""
        barrier = Barrier()
        barrier.handed("b", 6)
        barrier.begin(5, ["b"], NOW)
        assert barrier.may_release(NOW)


class TestEpochs:
    """They rise, and may be jumped."""

    def test_the_next_begins_anew(self) -> None:
        """What was allowed in one epoch is asked again in the next, before or after it was done."""
        barrier = among("b")
        barrier.entered("b", 5, NOW)
        barrier.handed("b", 5)
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)
        barrier.begin(6, ["b"], NOW + 10)
        assert (barrier.epoch, barrier.handed_over, barrier.released) == (6, False, False)
        assert not barrier.may_hand_over(NOW + 10)
        assert not barrier.may_release(NOW + 10 + HOLD_S + A_HAIR), "no peer has entered this one"
        barrier.entered("b", 6, NOW + 10)
        barrier.handed("b", 6)
        assert barrier.may_hand_over(NOW + 10)
        assert barrier.may_release(NOW + 10)

    def test_jumped_epochs_count_as_passed(self) -> None:
        """Peers that went from 5 to 9 have entered, and handed over, all between."""
        barrier = among("b", epoch=9)
        barrier.entered("b", 5, NOW)
        barrier.handed("b", 8)
        assert not barrier.may_hand_over(NOW)
        assert not barrier.may_release(NOW)
        barrier.entered("b", 9, NOW)
        barrier.handed("b", 9)
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)

    def test_a_lower_word_does_not_take_back_a_higher_one(self) -> None:
        """Words may overtake each other over two links."""
        barrier = among("b")
        barrier.entered("b", 6, NOW)
        barrier.entered("b", 4, NOW)
        barrier.handed("b", 6)
        barrier.handed("b", 4)
        assert barrier.routes_by("b") == 6
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)

    def test_a_peer_routes_by_what_it_said(self) -> None:
        """And by nothing known before it did."""
        barrier = among("b")
        assert barrier.routes_by("b") == 0
        barrier.entered("b", 3, NOW)
        assert barrier.routes_by("b") == 3

    def test_who_left_is_no_longer_waited_for(self) -> None:
        """The members of the present epoch count."""
        barrier = among("b", "c")
        barrier.begin(6, ["c"], NOW)
        barrier.entered("c", 6, NOW)
        barrier.handed("c", 6)
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)


class TestIncarnations:
    """A peer's word counts for its present life alone."""

    def test_a_new_life_has_said_nothing(self) -> None:
        """What routed by an epoch, or handed over, is gone with the old one."""
        barrier = among("b")
        barrier.entered("b", 5, NOW)
        barrier.handed("b", 5)
        barrier.peer_up("b", "b/2")
        assert barrier.routes_by("b") == 0
        assert not barrier.may_hand_over(NOW)
        assert not barrier.may_release(NOW)
        barrier.entered("b", 5, NOW)
        barrier.handed("b", 5)
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)

    def test_a_new_link_to_the_same_life_keeps_its_word(self) -> None:
        """A link that flaps takes nothing back."""
        barrier = among("b")
        barrier.entered("b", 5, NOW)
        barrier.handed("b", 5)
        barrier.peer_up("b", "b/1")
        assert barrier.may_hand_over(NOW)
        assert barrier.may_release(NOW)

    def test_a_new_life_that_has_said_nothing_yet_has_nothing_to_forget(self) -> None:
        """Its name alone was known."""
        barrier = among("b")
        barrier.peer_up("b", "b/2")
        barrier.peer_up("c", "c/1")
        assert barrier.silent() == ["b"]
