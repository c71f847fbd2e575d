"""What a node may do while its lease has lapsed, by what its peers say."""

import pytest

from ring.cluster.lease import SILENT_S, Outcome, Standing, Tenure

TTL = 3.0
UP: dict[str, Outcome | None] = {"n2": "up", "n3": "up"}


def judged(tenure: Tenure, now: float, peers: dict[str, Outcome | None], *, behind: bool = False) -> Standing:
    """Of a node that renewed last at 0."""
    return tenure.judge(now, 0.0, peers, behind=behind)


def test_a_fresh_lease_is_all_it_takes() -> None:
    """Whatever peers say, and however they can be reached."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 2.9, 60.0, 0.0, 2.9)
    assert judged(tenure, 2.9, {"n2": "timeout"}, behind=True) == "held"


def test_nobody_can_do_better_and_the_ring_is_frozen() -> None:
    """Redis went away for all: peers renewed up to a third of a ttl later than this node."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 1.0, 60.0, 0.0, 2.8)
    assert judged(tenure, 3.0, UP) == "frozen"


def test_a_peer_that_still_renews_supersedes() -> None:
    """Redis is there: it removes this node, and others take its slots."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 0.5, 60.0, 0.0, 2.8)
    tenure.answered("n3", 1.6, 60.0, 0.0, 2.8)
    assert judged(tenure, 3.0, UP) == "superseded"


def test_who_renews_first_after_an_outage_supersedes_nobody_at_once() -> None:
    """Redis gives all leases time then; only a node that does not come back in that time has to stop."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 30.0, 0.0, 0.0, 30.0)
    assert judged(tenure, 30.0, UP) == "frozen"
    tenure.answered("n2", 31.4, 1.4, 0.0, 31.4)
    assert judged(tenure, 31.4, UP) == "frozen"
    tenure.answered("n2", 31.5, 1.5, 0.0, 31.5)
    assert judged(tenure, 31.5, UP) == "superseded"


def test_a_peer_that_routes_by_a_later_ring_supersedes() -> None:
    """Whatever its lease: the ring has changed without this node."""
    assert judged(Tenure(TTL), 3.0, UP, behind=True) == "superseded"


def test_old_words_say_nothing() -> None:
    """A process that stood still knows nothing of what happened meanwhile, and must not go on."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 1.0, 60.0, 0.0, 2.8)
    assert judged(tenure, 4.3, UP) == "frozen"
    assert judged(tenure, 4.4, UP) == "unsure"


def test_words_of_those_who_are_no_members_do_not_count() -> None:
    """The ring is what the members say it is."""
    tenure = Tenure(TTL)
    tenure.answered("n9", 1.0, 60.0, 0.0, 2.9)
    assert judged(tenure, 3.0, UP) == "unsure"


def test_a_renewal_forgets_what_was_said_before() -> None:
    """The next lapse is another story."""
    tenure = Tenure(TTL)
    tenure.answered("n2", 1.6, 60.0, 0.0, 2.9)
    assert judged(tenure, 3.0, UP) == "superseded"
    assert tenure.judge(3.1, 3.05, UP, behind=False) == "held"
    assert tenure.judge(3.4, 0.0, UP, behind=False) == "unsure"


def test_a_peer_that_cannot_be_asked_leaves_it_at_what_was() -> None:
    """The previous release goes on in a frozen ring without asking anybody."""
    assert judged(Tenure(TTL), 3.0, {"n2": "mute", "n3": "timeout"}) == "frozen"


@pytest.mark.parametrize(
    ("peers", "standing"),
    [
        ({}, "frozen"),
        ({"n2": "refused", "n3": "refused"}, "frozen"),
        ({"n2": "refused_by_peer"}, "frozen"),
        ({"n2": "refused", "n3": "timeout"}, "isolated"),
        ({"n2": "timeout", "n3": "timeout"}, "isolated"),
        ({"n2": "timeout", "n3": None}, "unsure"),
        ({"n2": "refused", "n3": None}, "unsure"),
    ],
)
def test_without_any_answer_the_dials_decide(peers: dict[str, Outcome | None], standing: Standing) -> None:
    """Refused means dead, and the survivor goes on; no way to any of those that may live means cut off."""
    assert judged(Tenure(TTL), 3.0, peers) == standing


def test_a_linked_peer_that_says_nothing_cannot_be_reached() -> None:
    """A broken network tells nobody: the link still looks whole. Asking again does not give it more time."""
    tenure = Tenure(TTL)
    tenure.asked("n2", 2.8)
    tenure.asked("n2", 3.8)
    assert judged(tenure, 2.8 + SILENT_S - 0.1, {"n2": "up"}) == "unsure"
    assert judged(tenure, 2.8 + SILENT_S, {"n2": "up", "n3": "refused"}) == "isolated"


def test_who_is_cut_off_stays_so_until_somebody_answers() -> None:
    """Dials that are under way, and links that are new, are no answer."""
    tenure = Tenure(TTL)
    assert judged(tenure, 3.0, {"n2": "timeout"}) == "isolated"
    assert judged(tenure, 3.5, {"n2": None}) == "isolated"
    assert judged(tenure, 4.0, {"n2": "up"}) == "isolated"
    tenure.answered("n2", 1.0, 60.0, 0.0, 4.1)
    assert judged(tenure, 4.1, {"n2": "up"}) == "frozen"
