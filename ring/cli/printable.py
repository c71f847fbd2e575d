"""What strangers said, as a terminal may be shown it. For all commands that print names or messages."""


def printable(text: str) -> str:
    """`text` without what could command a terminal."""
    return "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in text)
