"""The mutants still fit the sources: each patch applies exactly once, and the tests that must notice exist."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants import __main__ as command
from tests.mutants.patches import ROOT, RULE, Edit, Mutant, exists, load

MUTANTS = load()
TESTING = (ROOT / "docs" / "testing.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mutant_fits_the_sources(mutant: Mutant) -> None:
    for edit in mutant.edits:
        assert edit.matches() == 1, f"{edit.file}: update the mutant to the changed source:\n{edit.old}"
        assert edit.old != edit.new
    assert mutant.tests, "name the test that must notice"
    for test in mutant.tests:
        assert exists(test), f"{test} is not there"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mutant_names_rules_that_are_explained(mutant: Mutant) -> None:
    assert mutant.rules and mutant.breaks
    for rule in mutant.rules:
        assert RULE.fullmatch(rule), f"{rule} is no id of a rule"
        told = PROTOCOL if rule[0] in "hI" else TESTING
        assert f"\n| {rule} |" in told or f"**{rule}**" in told, f"nobody says what {rule} is"


def test_ids_are_unique() -> None:
    ids = [mutant.id for mutant in MUTANTS]
    assert len(ids) == len(set(ids)) >= 25


def test_the_table_lists_mutants_that_exist() -> None:
    table = TESTING.partition(command.BEGIN)[2].partition(command.END)[0]
    listed = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")} - {"mutant"}
    assert listed and listed <= {mutant.id for mutant in MUTANTS}


def test_a_patch_applies_once_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one two two\n")
    Edit("a.py", "one", "1").apply(tmp_path)
    assert (tmp_path / "a.py").read_text() == "1 two two\n"
    for old in ("two", "three"):
        with pytest.raises(ValueError, match="not once"):
            Edit("a.py", old, "x").apply(tmp_path)
    with pytest.raises(ValueError, match="not once"):
        Edit("b.py", "one", "x").apply(tmp_path)


def verdict(by_test: str | None, by_seed: str | None, seeds: int) -> command.Verdict:
    mutant = Mutant("m", ("P1",), "breaks it", (), ("tests/a.py::test_p1_x",), 300)
    return command.Verdict(mutant, by_test, by_seed, seeds)


def test_the_report_says_who_noticed_and_who_survived(tmp_path: Path) -> None:
    killed = verdict("tests/a.py::test_p1_x[1]", "I6: told too early", 3)
    survivor = verdict(None, None, 300)
    assert killed.is_killed and not survivor.is_killed
    assert command.median_seeds([killed, survivor]) == 3
    table = command.markdown([killed, survivor])
    assert "1 of 2 mutants killed" in table
    assert "| m | P1 | breaks it | `test_p1_x` | after 3: I6 |" in table
    assert "| m | P1 | breaks it | – | not in 300 |" in table
    document = tmp_path / "testing.md"
    document.write_text(f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n")
    command.write_docs(table, document)
    assert document.read_text() == f"before\n{command.BEGIN}\n{table}\n{command.END}\nafter\n"


def test_verdicts_of_several_runs_make_one_table(tmp_path: Path) -> None:
    first, second = MUTANTS[:2]
    file = tmp_path / "results"
    command.save(
        [command.Verdict(second, None, None, 300), command.Verdict(first, "a::test_b", None, 300)], file
    )
    command.save([command.Verdict(second, None, "I6: late", 2), verdict(None, None, 1)], file)
    recalled = command.recall(file)
    assert [verdict.mutant for verdict in recalled] == [first, second]
    assert all(verdict.is_killed for verdict in recalled)


def test_a_workspace_sees_a_broken_rule_and_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mutant of a Python file, so that nothing has to be built here.
    monkeypatch.setattr(command.Workspace, "build", lambda self: None)
    workspace = command.Workspace(tmp_path)
    (mutant,) = [mutant for mutant in MUTANTS if mutant.id == "value-by-arrival"]
    seen = command.judge(workspace, mutant, seeds=0)
    assert seen.by_test == mutant.tests[0]
    for edit in mutant.edits:
        assert (workspace.root / edit.file).read_bytes() == (ROOT / edit.file).read_bytes()
    assert workspace.failing_test(mutant.tests) is None
    shutil.rmtree(tmp_path / "tree")
