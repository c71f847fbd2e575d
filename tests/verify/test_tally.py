"""The rows of the table: what is in them, and how long a fault was felt."""

from ring.verify.tally import Heard, Row, silences


class TestSilences:
    def test_served_again(self) -> None:
        """Served is who was hit and gets something that was sent since; the silence ends with anything."""
        heard = [
            Heard(9.0, "bob", 8.9),
            Heard(10.1, "eve", 10.0),  # was not hit
            Heard(12.0, "bob", 9.5),  # sent before
            Heard(12.5, "bob", 11.0),
            Heard(13.0, "bob", 12.9),
        ]
        assert silences(heard, {"bob"}, 10.0, 13.5) == (2.5, 2.0)

    def test_to_the_end(self) -> None:
        """Nothing came: there is no time until it did, and the silence lasts until the end."""
        assert silences([Heard(20.0, "bob", 10.5)], {"bob"}, 10.0, 14.0) == (None, 4.0)

    def test_nobody(self) -> None:
        """If nobody is known to have been hit, nothing is said."""
        assert silences([Heard(10.5, "bob", 10.1)], set(), 10.0, 14.0) == (None, None)


def test_document() -> None:
    """JSON has every count, and times from the beginning of the run."""
    row = Row("kill", 105.0, "seen", ("n1",), sent=9, doubled=2, served_s=0.12345)
    row.failed["offline"] += 1
    told = row.document(100.0)
    assert (told["fault"], told["at_s"], told["victims"]) == ("kill", 5.0, ["n1"])
    assert (told["sent"], told["doubled_raw"], told["failed"]) == (9, 2, {"offline": 1})
    assert (told["served_again_s"], told["longest_silence_s"]) == (0.123, None)
