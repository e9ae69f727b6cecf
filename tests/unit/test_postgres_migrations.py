"""Migration files: how they are read, and what no release may bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jobqueue_postgres.migrations_on_disk import Migration, bundled, read_migrations, runs_in_transaction, statements_of

Read = Callable[..., Mapping[int, Migration]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a folder of files, given as name -> text."""

    def read(files: Mapping[str, str]) -> Mapping[int, Migration]:
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        return read_migrations(tmp_path)

    return read


def test_migrations_come_in_order_with_what_undoes_them(read: Read) -> None:
    found = read(
        {"0002_two.up.sql": "2", "0001_one.down.sql": "-1", "0001_one.up.sql": "1", "README.md": "", "0003_three.sql": "", "__init__.py": ""}
    )
    assert [(one.version, one.label, one.up, one.down) for one in found.values()] == [(1, "0001_one", "1", "-1"), (2, "0002_two", "2", None)]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["0002_two.up.sql"], "0002_two: expected number 0001"),
        (["0001_one.up.sql", "0003_three.up.sql"], "0003_three: expected number 0002"),
        (["0001_one.up.sql", "0001_other.up.sql"], "0001_other: expected number 0002"),
        (["0001_one.down.sql"], r"0001_one\.up\.sql is missing"),
    ],
)
def test_numbers_have_no_gap_and_are_given_once(read: Read, files: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read(dict.fromkeys(files, "SELECT 1"))


def test_only_the_text_of_up_decides_whether_a_file_was_changed(read: Read) -> None:
    (one,) = read({"0001_one.up.sql": "SELECT 1", "0001_one.down.sql": "SELECT 1"}).values()
    (other,) = read({"0001_one.down.sql": "SELECT 2"}).values()
    (changed,) = read({"0001_one.up.sql": "SELECT 1 "}).values()
    assert one.checksum == other.checksum != changed.checksum


# Headers -------------------------------------------------------------------------------------------------------------------------------


def test_a_migration_can_be_read_from_its_own_version_on_unless_it_says_less(read: Read) -> None:
    found = read(
        {
            "0001_one.up.sql": "SELECT 1",
            "0002_two.up.sql": "-- Adds a column.\n-- migrate: readable-from 0001\nSELECT 1",
            "0003_three.up.sql": "-- migrate: readable-from 0003\n",
            "0004_four.up.sql": "SELECT 1",
        }
    )
    assert [one.readable_from for one in found.values()] == [1, 1, 3, 4]


def test_what_an_older_release_could_not_read_it_cannot_read_after_the_next_migration_either(read: Read) -> None:
    with pytest.raises(ValueError, match=r"0003_three\.up\.sql: readable-from is lower than that of the migration before"):
        read({"0001_one.up.sql": "", "0002_two.up.sql": "", "0003_three.up.sql": "-- migrate: readable-from 0001"})


@pytest.mark.parametrize(
    ("file", "header"),
    [
        ("up", "-- migrate: no-transactions"),
        ("up", "-- migrate: no-transaction 0001"),
        ("up", "-- migrate: readable-from"),
        ("up", "-- migrate: readable-from 0000"),
        ("up", "-- migrate: readable-from 0002"),
        ("down", "-- migrate: readable-from 0001"),
        ("down", "-- migrate: typo"),
    ],
)
def test_a_header_that_means_nothing_is_refused_with_its_file(read: Read, file: str, header: str) -> None:
    with pytest.raises(ValueError, match=rf"0001_one\.{file}\.sql"):
        read({"0001_one.up.sql": "SELECT 1", f"0001_one.{file}.sql": f"{header}\nSELECT 1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", True),
        ("-- migrate: no-transaction\nSELECT 1", False),
        ("-- Why.\n-- migrate: no-transaction\nSELECT 1", False),
        ("-- It says migrate: no-transaction\nSELECT 1", True),
        ("SELECT '-- migrate: no-transaction'", True),
    ],
)
def test_a_file_runs_in_a_transaction_unless_its_header_says_otherwise(text: str, *, expected: bool) -> None:
    assert runs_in_transaction(text) is expected


# Statements ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("-- only; a comment\n/* and; another */ ;;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;\n-- Why; because.\nSELECT 2; -- so\n", ["SELECT 1", "SELECT 2"]),
        ("SELECT 'a;''b;'; SELECT \";\"", ["SELECT 'a;''b;'", 'SELECT ";"']),
        ("SELECT '-- no comment'; SELECT '/* nor this'", ["SELECT '-- no comment'", "SELECT '/* nor this'"]),
        ("DO $$ BEGIN; 'x; END $$; SELECT 1", ["DO $$ BEGIN; 'x; END $$", "SELECT 1"]),
        ("DO $a$ $$;$b$; $a$; SELECT 1", ["DO $a$ $$;$b$; $a$", "SELECT 1"]),
        ("SELECT a$1; SELECT b$1", ["SELECT a$1", "SELECT b$1"]),
        ("SELECT 1--x\n+1", ["SELECT 1 \n+1"]),
    ],
)
def test_a_file_is_taken_apart_at_the_semicolons_that_end_statements(text: str, expected: list[str]) -> None:
    assert statements_of(text) == expected


# What this release brings --------------------------------------------------------------------------------------------------------------


def test_each_migration_of_this_release_can_be_undone() -> None:
    assert bundled()
    assert [one.label for one in bundled().values() if not one.down] == []


def test_no_migration_names_a_schema_or_decides_who_owns_what() -> None:
    for one in bundled().values():
        for text in (one.up, one.down or ""):
            for word in ("public.", "OWNER TO", "GRANT ", "CREATE EXTENSION", "SET search_path TO"):
                assert word not in text, f"{one.label}: {word}"


def test_whatever_runs_with_its_owners_rights_is_taken_from_everybody_and_granted_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "postgres.md").read_text(encoding="utf-8")
    for one in bundled().values():
        for definition in one.up.split("CREATE FUNCTION ")[1:]:
            if "SECURITY DEFINER" in definition.partition("$$")[0]:
                name = definition.partition("(")[0]
                assert any(name in line for line in one.up.splitlines() if line.startswith("REVOKE EXECUTE ON FUNCTION")), name
                assert any(name in line for line in page.splitlines() if line.startswith("GRANT EXECUTE ON FUNCTION")), name
            assert "SET search_path FROM CURRENT" in definition.partition("$$")[0]
