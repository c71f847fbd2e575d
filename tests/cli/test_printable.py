"""What may be shown on a terminal."""

import subprocess
import sys

import pytest

from ring.cli.printable import printable


def test_printable() -> None:
    """Letters of all scripts stay; whatever controls does not."""
    assert printable("héllo 你好 🙂") == "héllo 你好 🙂"
    assert printable("a\tb\x9bc\u202e") == r"a\x09b\x9bc\x202e"


@pytest.mark.parametrize("module", ["picture", "sheet"])
def test_printing_does_not_load_the_client_library(module: str) -> None:
    """Commands that only show something are quick to start."""
    code = f"import sys, ring.cli.{module}; sys.exit('ring.client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
