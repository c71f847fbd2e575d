"""An option of a node: one field of the settings, as a flag, a variable and a key, and in words.

`ring.config` makes the table of them; commands and documentation read it.
"""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from msgspec import NODEFAULT, Meta


class Option(NamedTuple):
    """A row of the table of options."""

    name: str
    type: Any
    default: object
    help: str

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The option in the environment."""
        return "RING_" + self.name.upper()

    @property
    def plain(self) -> Any:
        """The type alone: without bounds, and without None."""
        return plain_type(self.type)

    @property
    def many(self) -> bool:
        """True if the option takes a list."""
        return get_origin(self.plain) is tuple

    @property
    def required(self) -> bool:
        """True if the option has no default."""
        return self.default is NODEFAULT

    @property
    def expects(self) -> str:
        """What a value must be, in words."""
        notes = metas(self.type)
        words = next((meta.extra["expects"] for meta in notes if meta.extra), None)
        if words is not None:
            return str(words)
        if get_origin(self.plain) is Literal:
            return "one of " + ", ".join(get_args(self.plain))
        words = {
            str: "a text",
            int: "a whole number",
            float: "a number",
            bool: "true or false",
            Path: "the path of a file",
        }.get(self.plain, "a list of texts")
        if self.name.endswith("_per_s"):
            words += " per second"
        elif self.name.endswith("_s"):
            words += " of seconds"
        elif self.name.endswith("_bytes"):
            words += " of bytes"
        low = next((meta.ge for meta in notes if meta.ge is not None), None)
        high = next((meta.le for meta in notes if meta.le is not None), None)
        if low is not None and high is not None:
            return f"{words}, {low} to {high}"
        if low is not None:
            return f"{words}, {low} or more"
        if high is not None:
            return f"{words} above 0, up to {high}"
        return words


def metas(hint: Any) -> list[Meta]:
    """What is said of a type beside the type."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return [*metas(inner), *(note for note in notes if isinstance(note, Meta))]
    if get_origin(hint) in (Union, UnionType):
        return metas(get_args(hint)[0])
    return []


def plain_type(hint: Any) -> Any:
    """A type without bounds, and without None."""
    if get_origin(hint) is Annotated or get_origin(hint) in (Union, UnionType):
        return plain_type(get_args(hint)[0])
    return hint
