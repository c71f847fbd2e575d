"""What documents, packaging and code must agree on, and the shape that the code keeps."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from ring import __version__
from ring.cli.main import app
from ring.protocol.codes import CLOSINGS, ErrorCode

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "ring").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def named(path: Path) -> str:
    """How a test about a file is called."""
    return str(path.relative_to(ROOT))


def rows(page: str) -> list[list[str]]:
    """The cells of all tables of a page, without the marks of code."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]


class TestDocs:
    def test_close_codes(self) -> None:
        """The table of close codes is that of the code: codes, meanings, reactions, and their order."""
        told = [row[:3] for row in rows("docs/protocol.md") if row[0].isdigit() and len(row[0]) == 4]
        assert told == [
            [str(code), closing.meaning, closing.reaction.value] for code, closing in CLOSINGS.items()
        ]

    def test_error_codes(self) -> None:
        """Every error code is in a table, with whether the same may be tried again."""
        told = {row[0]: row[1] for row in rows("docs/protocol.md") if row[0] in set(ErrorCode)}
        assert told == {code.value: "yes" if code.retryable else "no" for code in ErrorCode}

    def test_configuration(self) -> None:
        """The table of options is the one that `make docs` writes."""
        subprocess.run(
            [sys.executable, "docs/reference/make.py", "--check"], cwd=ROOT, check=True, timeout=30
        )

    def test_commands(self) -> None:
        """Every command is described, and so is every option that is not one of a node's."""
        page = (ROOT / "docs/reference/cli.md").read_text("utf-8")
        commands = {f"ring {name}": command for name, command in get_command(app).commands.items()}  # type: ignore[attr-defined] # it is a group
        for name, group in list(commands.items()):
            for inner, command in getattr(group, "commands", {}).items():
                commands[f"{name} {inner}"] = command
        for name, command in commands.items():
            assert f"`{name}" in page, name
            if name != "ring serve":
                for parameter in command.params:
                    flags = [flag for flag in parameter.opts if flag.startswith("--") and flag != "--help"]
                    assert not flags or any(flag in page for flag in flags), (name, flags)

    @pytest.mark.parametrize("page", PAGES, ids=named)
    def test_links(self, page: Path) -> None:
        """What a page links to inside the repository is there."""
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), target

    def test_changelog(self) -> None:
        """Its newest entry is this release, or what comes after it."""
        headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
        assert __version__ in headings[:2]


class TestRequirements:
    @pytest.mark.parametrize("path", REQUIREMENTS, ids=named)
    def test_pinned(self, path: Path) -> None:
        """Every requirement has one release and hashes; none says where to get it."""
        text = path.read_text("utf-8")
        requirements = re.split(r"\n(?=\S)", text.strip())
        for requirement in requirements:
            assert re.match(r"[a-z0-9-]+==[^\s;]+( ; [^\\\n]+)? \\\n +--hash=sha256:", requirement), (
                requirement
            )
        assert not re.search(r"://|^-|--index|--find-links|file:", text, re.MULTILINE)

    def test_complete(self) -> None:
        """What pyproject.toml asks for is pinned; what only tests need is not in the node's."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        asked = project["project"]["dependencies"]
        more = [
            *project["project"]["optional-dependencies"]["dev"],
            *project["dependency-groups"]["test"],
            *project["dependency-groups"]["build"],
        ]

        def names(requirements: list[str]) -> set[str]:
            return {re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower() for requirement in requirements}

        pinned = {
            path.stem: dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text("utf-8"), re.MULTILINE))
            for path in REQUIREMENTS
        }
        run, dev = pinned["run"], pinned["dev"]
        assert names(asked) <= set(run)
        assert names(asked + more) <= set(dev)
        assert not set(run) & (names(more) - names(asked))
        assert run.items() <= dev.items()


class TestShape:
    @pytest.mark.parametrize("path", MODULES, ids=named)
    def test_length(self, path: Path) -> None:
        """No module passes 400 lines: it would have two subjects."""
        assert len(path.read_text("utf-8").splitlines()) <= 400

    def test_packages_are_empty(self) -> None:
        """But for the public faces, `__init__.py` says nothing."""
        faces = {ROOT / "ring/__init__.py", ROOT / "ring/client/__init__.py"}
        assert not [
            named(path)
            for path in MODULES
            if path.name == "__init__.py" and path not in faces and path.stat().st_size
        ]

    def test_tests_mirror_the_code(self) -> None:
        """Test files of a layer are in the folder of its name; no two have the same name."""
        tests = sorted((ROOT / "tests").rglob("test_*.py"))
        names = [path.name for path in tests]
        assert len(names) == len(set(names))
        layers = {path.name for path in (ROOT / "ring").iterdir() if path.is_dir()} | {
            "integration",
            "conformance",
            "tests",
        }
        assert {path.parent.name for path in tests} <= layers
