"""Documents from files: problems with file, line and reason, and the plan of ``apply``."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepstream.admin.documents import (
    Change,
    DocumentsError,
    StoredDocument,
    contradictions,
    encode,
    plan,
    read_documents,
    to_yaml,
)
from stepstream.schemas.documents import DOCUMENT

GOOD = """\
kind: Policy
name: support-refunds
match: {project: shop, agent: "support-*"}
rules:
  - {alert: too-expensive, rule: run_cost, warn_usd: 0.30, limit_usd: 0.50, severity: critical}
  - {alert: slow, rule: run_duration, limit: 90s}
---
kind: Subscription
name: oncall
to: {webhook: {url: "https://example.org/hook"}}
---
kind: Prices
name: negotiated
models:
  - {provider: openai, model: gpt-4o, valid_from: 2026-01-01, input_per_million: 2.0,
     output_per_million: 8.0}
"""


def problems(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    """Lines and reasons of a file's problems."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(DocumentsError) as caught:
        read_documents(file)
    assert str(caught.value).startswith(f"{file}:")
    return [(problem.place.line, problem.reason) for problem in caught.value.problems]


def policy(*rules: str, head: str = "") -> str:
    return "\n".join(
        [
            "kind: Policy",
            "name: p",
            head or "mode: observe",
            "rules:",
            *(f"  - {rule}" for rule in rules),
        ]
    )


def test_a_file_may_hold_several_documents_and_a_folder_several_files(tmp_path: Path) -> None:
    """In the order of files and lines; what is no YAML or JSON, or hidden, is left alone."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "all.yaml").write_text(GOOD)
    (tmp_path / "b.json").write_text('{"kind": "Policy", "name": "json"}')
    # Neither YAML nor JSON by its name: it may have any content.
    (tmp_path / "notes.txt").write_text("kind: [")
    (tmp_path / ".git").mkdir()
    # Not YAML: reading it would be an error of the whole folder.
    (tmp_path / ".git" / "c.yaml").write_text("kind: [")
    written = read_documents(tmp_path)
    assert [(one.key, one.place.line) for one in written] == [
        ("policy/support-refunds", 1),
        ("subscription/oncall", 8),
        ("prices/negotiated", 12),
        ("policy/json", 1),
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (
            "kind: Polcy\nname: a",
            1,
            "kind of the document is 'Polcy'; did you mean Policy?",
        ),
        (
            "name: a",
            1,
            "kind of the document is missing"
            " (one of Policy, Subscription, Prices, Criteria, Queue, Schedule)",
        ),
        ("- 1", 1, "a document is a mapping with kind and name"),
        # YAML parsers silently take the last of two equal keys.
        ("kind: Policy\n\nkind: Policy\nname: a", 3, "kind is given twice"),
        ("kind: Policy\nname: [a", 2, "not YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "kind: Policy\nname: Refunds",
            2,
            "name is 'Refunds': it must match ^[a-z0-9][a-z0-9_.-]*$",
        ),
        (
            "kind: Policy\nname: a\nmatch:\n  projct: shop",
            4,
            "match.projct is unknown; did you mean project?",
        ),
        ("kind: Policy\nname: a\nmode: enforced", 3, "mode is 'enforced'; did you mean enforce?"),
        (
            policy("{rule: run_costs, limit_usd: 1}"),
            5,
            "rules.0: there is no rule 'run_costs'; did you mean run_cost?",
        ),
        (
            policy("{rule: loop}", "{rule: run_steps, limit: 5, limt: 6}"),
            6,
            "rules.1.limt is unknown; did you mean limit?",
        ),
        (policy("{rule: run_cost}"), 5, "rules.0.limit_usd is missing"),
        (
            policy("{rule: run_duration, limit: 90x}"),
            5,
            "rules.0.limit: not a duration: '90x' (write 90s, 1h30m, 250ms, 2d)",
        ),
        (
            policy("{rule: run_cost, limit_usd: 1, warn_usd: 2}"),
            5,
            "rules.0: warn_usd must be lower than limit_usd",
        ),
        ("kind: Subscription\nname: a\nto: {}", 3, "to takes at least 1 entry"),
        (
            "kind: Prices\nname: a\nmodels:\n- model: m\n"
            "  input_per_million: -1\n  output_per_million: 1",
            5,
            "models.0.input_per_million must be at least 0, not -1",
        ),
    ],
)
def test_a_problem_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    """The deepest line that is to blame, in the words of the file, with what was probably meant."""
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0][0] == line
    assert found[0][1].startswith(reason)


def test_all_problems_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    """One run lists every error of a folder."""
    (tmp_path / "a.yaml").write_text("kind: Policy\nname: A")
    (tmp_path / "b.yaml").write_text("kind: Policy\nname: b\nmode: x\nrules: 3")
    # Not UTF-8; a problem without a line has line 0.
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DocumentsError) as caught:
        read_documents(tmp_path)
    assert [(problem.place.file.name, problem.place.line) for problem in caught.value.problems] == [
        ("a.yaml", 2),
        ("b.yaml", 3),
        ("b.yaml", 4),
        ("c.yaml", 0),
    ]


def test_a_document_written_twice_is_an_error(tmp_path: Path) -> None:
    """Which one holds would depend on the names of files."""
    (tmp_path / "a.yaml").write_text("kind: Policy\nname: p")
    (tmp_path / "b.yaml").write_text("# the same\nkind: Policy\nname: p")
    with pytest.raises(
        DocumentsError,
        match=r"b\.yaml:2: policy/p is written twice; the other one is at .*a\.yaml:1",
    ):
        read_documents(tmp_path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Not an empty list of documents."""
    with pytest.raises(DocumentsError, match="there is no such file or folder"):
        read_documents(tmp_path / "none.yaml")


def stored(tmp_path: Path, *, owner: str = "") -> dict[str, StoredDocument]:
    """The good documents as the topic holds them."""
    (tmp_path / "good.yaml").write_text(GOOD)
    written = read_documents(tmp_path / "good.yaml")
    return {one.key: StoredDocument(one.key, encode(one.document), owner, 0, 0) for one in written}


def test_a_record_has_the_content_of_the_file(tmp_path: Path) -> None:
    """The value on the topic and the YAML made from it give the same document."""
    for record in stored(tmp_path).values():
        document = DOCUMENT.validate_json(record.value)
        file = tmp_path / "again.yaml"
        file.write_text(to_yaml(record))
        assert [one.document for one in read_documents(file)] == [document]
        assert record.same_as(document)


def test_durations_are_shown_as_people_write_them(tmp_path: Path) -> None:
    """90s, not 90000000us."""
    assert "limit: 90s" in to_yaml(stored(tmp_path)["policy/support-refunds"])


def test_the_plan_lists_what_is_new_changed_and_the_same(tmp_path: Path) -> None:
    """What already holds is not sent again; without an owner nothing is withdrawn."""
    records = stored(tmp_path)
    (tmp_path / "good.yaml").write_text(
        GOOD.replace("90s", "80s").replace("name: negotiated", "name: other")
    )
    changes = plan(read_documents(tmp_path / "good.yaml"), records)
    assert [(change.key, change.what) for change in changes] == [
        ("policy/support-refunds", "changed"),
        ("subscription/oncall", "unchanged"),
        ("prices/other", "created"),
    ]


def test_an_owner_withdraws_what_it_no_longer_names_and_nothing_else(tmp_path: Path) -> None:
    """A watched folder takes back its own documents only."""
    records = stored(tmp_path, owner="folder /p") | {
        # Applied by hand: it has no owner.
        "policy/else": StoredDocument("policy/else", b"{}", "", 0, 0)
    }
    changes = plan([], records, owner="folder /p")
    assert changes == [
        Change(key, "withdrawn")
        for key in ("policy/support-refunds", "subscription/oncall", "prices/negotiated")
    ]


def test_contradictions_are_refused_at_the_line_of_the_rule(tmp_path: Path) -> None:
    """In a file, and between files; the other rule is named with its place."""
    stop = "{rule: run_cost, limit_usd: 0.2, action: stop}"
    more = "{rule: run_cost, limit_usd: 0.5, action: stop, alert: more}"
    text = policy(stop, more, head="mode: enforce")
    why = "limit_usd: 0.5 has no effect: {} stops the run at limit_usd: 0.2"
    assert problems(tmp_path, text) == [(6, why.format("rule run-cost in line 5"))]
    (tmp_path / "bad.yaml").unlink()
    (tmp_path / "a.yaml").write_text(policy(stop, head="mode: enforce"))
    (tmp_path / "b.yaml").write_text(policy(more, head="mode: enforce").replace("p\n", "q\n", 1))
    other = f"rule run-cost of policy p ({tmp_path / 'a.yaml'}:5)"
    # As a folder and as two arguments: both are one set of documents.
    for paths in ([tmp_path], [tmp_path / "a.yaml", tmp_path / "b.yaml"]):
        with pytest.raises(DocumentsError) as caught:
            read_documents(*paths)
        (problem,) = caught.value.problems
        assert str(problem) == f"{tmp_path / 'b.yaml'}:5: {why.format(other)}"


def test_contradictions_with_policies_in_force(tmp_path: Path) -> None:
    """At the line of the new rule, whichever of the two has no effect. A policy that is replaced
    contradicts nothing.
    """

    def rule(limit: float) -> str:
        return policy(f"{{rule: run_cost, limit_usd: {limit}, action: stop}}", head="mode: enforce")

    file = tmp_path / "p.yaml"
    file.write_text(rule(0.5))
    written = read_documents(file)

    def present(name: str, limit: float) -> dict[str, StoredDocument]:
        file.write_text(rule(limit).replace("name: p", f"name: {name}"))
        (one,) = read_documents(file)
        return {one.key: StoredDocument(one.key, encode(one.document), "", 0, 0)}

    (low,) = contradictions(written, present("old", 0.2))
    in_force = "rule run-cost of policy old in force"
    assert str(low) == (
        f"{file}:5: limit_usd: 0.5 has no effect: {in_force} stops the run at limit_usd: 0.2"
    )
    (high,) = contradictions(written, present("old", 0.9))
    assert high.place.line == 5
    assert high.reason.startswith(f"contradicts {in_force}: limit_usd: 0.9 has no effect: this")
    # The same name: the policy in force is the one that is replaced.
    assert not contradictions(written, present("p", 0.2))
