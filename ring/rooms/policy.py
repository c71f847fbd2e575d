"""What becomes of a room's messages at a member that reads too slowly: by the room's name."""

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Any

from ring.config import Policy

DEFAULT: Policy = "disconnect"
"""The policy of rooms that no pattern matches."""


class Policies:
    """Finds the policy of a room.

    Args:
        patterns: shell-style patterns (`*`, `?`, `[…]`; case counts) with their policies; the first match
            counts.
    """

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Iterable[tuple[str, Policy]] = ()) -> None:
        self._patterns: list[tuple[Callable[[str], Any], Policy]] = [
            (re.compile(translate(pattern)).match, policy) for pattern, policy in patterns
        ]

    def of(self, room: str) -> Policy:
        """The policy of this room."""
        for matches, policy in self._patterns:
            if matches(room):
                return policy
        return DEFAULT
