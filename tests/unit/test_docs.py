"""The documentation is true: its programs run, its links lead somewhere, its state diagram is the state machine.

A fenced block of Python under ``<!-- run -->`` is a whole program: it is executed in a namespace of its own, and then its ``test_`` functions are
called. One under ``<!-- file: package/module.py -->`` is a file that the programs of its page import.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import pytest

import jobqueue_core
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.job import DeadReason, JobState
from jobqueue_core.lifecycle import TRANSITIONS

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])

_BLOCK: Final = re.compile(r"^<!-- (?:run|file: (?P<file>[\w./-]+)) -->\n+```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_FENCED: Final = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_ARROW: Final = re.compile(r"^ *(?P<before>\w+) --> (?P<after>\w+)", re.MULTILINE)


class Block(NamedTuple):
    """A marked block of Python; *file* is None for a program."""

    page: Path
    line: int
    code: str
    file: str | None


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, match.start("code")), match["code"], match["file"])


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]
PROGRAMS: Final = [block for block in BLOCKS if block.file is None]

Run = Callable[[Block], None]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a program in an empty folder, beside the files that its page tells the reader to write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def run(block: Block) -> None:
        for other in blocks_of(block.page):
            if other.file is not None:
                path = tmp_path / other.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(other.code)
        module = ModuleType("docs_program")
        # Data classes look their module up by its name.
        monkeypatch.setitem(sys.modules, module.__name__, module)
        code = compile("\n" * block.line + block.code, named(block.page), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        for name, value in list(vars(module).items()):
            if name.startswith("test_"):
                value()

    yield run
    # By where they lie, not by name: a page has a folder "tests", and so have we.
    written = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    for name in [name for name in sys.modules if name not in known and name.partition(".")[0] in written]:
        del sys.modules[name]


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"{named(block.page)}:{block.line}")
def test_a_program_in_the_docs_runs(run: Run, block: Block) -> None:
    run(block)


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: f"{named(block.page)}:{block.line}")
def test_a_program_in_the_docs_claims_something_that_can_fail(block: Block) -> None:
    assert "assert " in block.code or "pytest.raises" in block.code


@pytest.mark.parametrize(("file", "some"), [("tests/test_my_broker.py", "idempotency or release"), ("tests/test_my_storage.py", "dead_letter")])
def test_a_conformance_suite_runs_as_the_docs_show(tmp_path: Path, file: str, some: str) -> None:
    """In a process of its own, as its author would; *some* of it is enough to see that it is arranged rightly."""
    (block,) = (block for block in BLOCKS if block.file == file)
    path = tmp_path / Path(file).name
    path.write_text(block.code)

    command: list[str | Path] = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", some, path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE)


def test_every_marked_block_of_the_docs_is_found() -> None:
    """A mark that is not followed by a block of Python would be a program that nobody runs."""
    marks = sum(len(re.findall(r"^<!-- (?:run|file:)", page.read_text(), re.MULTILINE)) for page in PAGES)

    assert len(BLOCKS) == marks
    assert len(PROGRAMS) >= 15


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = (match["text"] for match in _HEADING.finditer(_FENCED.sub("", page.read_text())))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    astray = []
    for match in _LINK.finditer(_FENCED.sub("", page.read_text())):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            astray.append(match["target"])

    assert astray == []


def test_every_public_name_of_the_core_is_documented() -> None:
    text = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))

    assert [name for name in jobqueue_core.__all__ if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)] == []


def test_the_index_lists_every_page_of_the_docs() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / match["target"]).resolve() for match in _LINK.finditer(index.read_text())}

    assert sorted(named(page) for page in DOCS.rglob("*.md") if page != index and page.resolve() not in linked) == []


def test_the_state_diagram_is_the_state_machine() -> None:
    text = (DOCS / "concepts.md").read_text()
    diagram = text.partition("```mermaid\n")[2].partition("```")[0]
    drawn = {(match["before"], match["after"]) for match in _ARROW.finditer(diagram)}

    assert drawn == {(before.value, after.value) for before, afters in TRANSITIONS.items() for after in afters}


@pytest.mark.parametrize("kind", [JobState, DeadReason, ExecutionState])
def test_every_state_and_reason_is_explained(kind: type[JobState | DeadReason | ExecutionState]) -> None:
    text = (DOCS / "concepts.md").read_text()

    assert [one.value for one in kind if not re.search(rf"^(\| |- \*\*)`{one.value}`", text, re.MULTILINE)] == []
