"""Documents (policies, subscriptions, prices) in files and on the config topic.

``read_documents`` checks files: every problem is reported with file, line and reason, and nothing
is sent if there is any. ``in_force`` reads the topic, ``publish`` and ``withdraw`` write to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from pydantic import ValidationError

from stepstream.admin import topics, yamlfile
from stepstream.admin.yamlfile import Place, Problem
from stepstream.common.kafka import Outgoing, producer, read_to_end, send_and_wait
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.documents import DOCUMENT, Prices, Subscription, document_key
from stepstream.schemas.durations import shorten_durations
from stepstream.schemas.guardrails import encode_guarded
from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_conflicts import RuleRef, conflicts
from stepstream.schemas.schedule import Schedule
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_queue import Queue
from stepstream.schemas.topics import topic

AnyDocument = Policy | Subscription | Prices | Criteria | Queue | Schedule
KINDS: Final = ("Policy", "Subscription", "Prices", "Criteria", "Queue", "Schedule")
SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
OWNER_HEADER: Final = "stepstream-owner"
"""Who put the record there; a watched folder withdraws only what it put there itself."""
FILE_HEADER: Final = "stepstream-file"
"""The file of a watched folder that the document was read from."""
POLICY_PREFIX: Final = "policy/"
REVISION_MARK: Final = "@"
"""In the key of a revision that is kept: ``policy/costs@3``."""
SEND_S: Final = 30.0


class DocumentsError(Exception):
    """Invalid documents: one problem per line, with file, line and reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Written:
    """A document and where it was written."""

    document: AnyDocument
    place: Place
    rule_lines: tuple[int, ...] = ()
    """The lines of a policy's rules."""

    @property
    def key(self) -> str:
        return document_key(self.document)


@dataclass(frozen=True)
class StoredDocument:
    """A record of the config topic."""

    key: str
    value: bytes
    owner: str
    timestamp_ms: int
    offset: int
    file: str = ""
    """The file that owns it; empty where no watched folder does."""

    @property
    def owned_by(self) -> str:
        """The file or other owner that it is changed in."""
        return f"{self.file} ({self.owner})" if self.file else self.owner

    @property
    def revision(self) -> int:
        """The policy's revision; 0 for other documents, and for those of older versions."""
        try:
            found = msgspec.json.decode(self.value)
        except msgspec.DecodeError:
            return 0
        number = found.get("revision", 0) if isinstance(found, dict) else 0
        return number if isinstance(number, int) else 0

    @property
    def kind(self) -> str:
        """The document's kind, as people write it."""
        kind = self.key.partition("/")[0]
        return next((known for known in KINDS if known.lower() == kind), kind)

    @property
    def name(self) -> str:
        return self.key.partition("/")[2]

    def same_as(self, document: AnyDocument) -> bool:
        """Whether its content equals that of the document."""
        try:
            return _unnumbered(DOCUMENT.validate_json(self.value)) == _unnumbered(document)
        except ValidationError:
            return False


@dataclass(frozen=True)
class Change:
    """What applying a document does."""

    key: str
    what: Literal["created", "changed", "unchanged", "withdrawn"]
    place: Place | None = None


def read_documents(*paths: Path) -> list[Written]:
    """All documents of files, and of all YAML and JSON files in directories.

    Raises ``DocumentsError`` with every problem; policies that contradict each other are problems.
    """
    problems: list[Problem] = []
    written: list[Written] = []
    for path in paths:
        try:
            files = files_of(path)
        except DocumentsError as error:
            problems += error.problems
            continue
        for node in (node for file in files for node in yamlfile.read(file, problems)):
            document = _validated(node, problems)
            if document is not None:
                written.append(Written(document, node.place, _rule_lines(document, node)))
    _refuse_repeats(written, problems)
    # A policy that is there twice contradicts itself: one problem is enough.
    problems = problems or contradictions(written)
    if problems:
        raise DocumentsError(problems)
    return written


def _rule_lines(document: AnyDocument, node: yamlfile.Document) -> tuple[int, ...]:
    if not isinstance(document, Policy):
        return ()
    return tuple(yamlfile.line_of(node, ("rules", n)) for n in range(len(document.rules)))


def contradictions(
    written: Iterable[Written], present: Mapping[str, StoredDocument] | None = None
) -> list[Problem]:
    """The contradictions between policies, each at the line of one of the two rules.

    ``present`` are documents in force; contradictions among these are left out.
    """
    given = {one.document.name: one for one in written if isinstance(one.document, Policy)}
    others = [
        policy
        for record in (present or {}).values()
        if (policy := _policy_of(record)) is not None and policy.name not in given
    ]
    policies = [one.document for one in given.values() if isinstance(one.document, Policy)]
    problems = []
    for found in conflicts([*policies, *others]):
        if found.at.policy.name in given:
            why = found.why.format(other=_named(found.other, found.at, given))
            problems.append(Problem(_place(found.at, given), why))
        elif found.other.policy.name in given:
            # The rule in force has no line here: the problem is at the rule that is new.
            why = found.why.format(other="this rule")
            at = f"rule {found.at.rule.alert_name} of policy {found.at.policy.name} in force"
            problems.append(Problem(_place(found.other, given), f"contradicts {at}: {why}"))
    return problems


def _policy_of(record: StoredDocument) -> Policy | None:
    if record.kind != "Policy":
        return None
    try:
        document = DOCUMENT.validate_json(record.value)
    except ValidationError:  # of a newer version
        return None
    return document if isinstance(document, Policy) else None


def _place(ref: RuleRef, given: Mapping[str, Written]) -> Place:
    one = given[ref.policy.name]
    line = one.rule_lines[ref.index] if ref.index < len(one.rule_lines) else one.place.line
    return Place(one.place.file, line)


def _named(ref: RuleRef, seen_from: RuleRef, given: Mapping[str, Written]) -> str:
    """The rule with its policy and place, as far as they differ from those of the other rule."""
    name = f"rule {ref.rule.alert_name}"
    if ref.policy.name not in given:
        return f"{name} of policy {ref.policy.name} in force"
    place = _place(ref, given)
    if ref.policy.name == seen_from.policy.name:
        return f"{name} in line {place.line}"
    return f"{name} of policy {ref.policy.name} ({place})"


def files_of(path: Path) -> list[Path]:
    """The file, or the YAML and JSON files in the directory. Raises ``DocumentsError``."""
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in SUFFIXES
            and file.is_file()
            # Kubernetes mounts a ConfigMap with hidden copies of its files (`..data`).
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        return found
    if not path.exists():
        raise DocumentsError([Problem(Place(path, 0), "there is no such file or folder")])
    return [path]


def _validated(node: yamlfile.Document, problems: list[Problem]) -> AnyDocument | None:
    try:
        return DOCUMENT.validate_python(node.value)
    except ValidationError as error:
        problems += yamlfile.explain(error, node, AnyDocument)
        return None


def _refuse_repeats(written: Sequence[Written], problems: list[Problem]) -> None:
    first: dict[str, Place] = {}
    for one in written:
        earlier = first.setdefault(one.key, one.place)
        if earlier is not one.place:
            problems.append(
                Problem(one.place, f"{one.key} is written twice; the other one is at {earlier}")
            )


def encode(document: AnyDocument) -> bytes:
    """The record's value."""
    return document.model_dump_json().encode()


def _unnumbered(document: AnyDocument) -> AnyDocument:
    """The document without what `apply` gives it, which is no part of what it states."""
    if isinstance(document, Policy) and document.revision:
        return document.model_copy(update={"revision": 0})
    if isinstance(document, Schedule) and document.applied_us:
        return document.model_copy(update={"applied_us": 0})
    return document


def in_force(settings: Settings) -> dict[str, StoredDocument]:
    """The documents in force, by key. Raises ``KafkaUnreachable``."""
    return {key: one for key, one in stored(settings).items() if REVISION_MARK not in key}


def revisions(settings: Settings, key: str) -> list[StoredDocument]:
    """The kept revisions of a policy, the newest first. Raises ``KafkaUnreachable``."""
    beginning = f"{key}{REVISION_MARK}"
    found = [one for name, one in stored(settings).items() if name.startswith(beginning)]
    return sorted(found, key=lambda one: -one.revision)


def stored(settings: Settings) -> dict[str, StoredDocument]:
    """Everything on the config topic by key, kept revisions as well.

    Raises ``KafkaUnreachable``.
    """
    name = topic(settings.topic_prefix, "config")
    topics.require_topic(settings, name)
    found: dict[str, StoredDocument] = {}
    for message in read_to_end(settings, name, timeout=SEND_S):
        key, value = _text(message.key()), message.value()
        if not value:
            found.pop(key, None)
            continue
        headers = dict(message.headers() or [])
        found[key] = StoredDocument(
            key,
            _bytes(value),
            _text(headers.get(OWNER_HEADER)),
            message.timestamp()[1],
            message.offset() or 0,
            _text(headers.get(FILE_HEADER)),
        )
    return dict(sorted(found.items()))


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def plan(
    written: Iterable[Written], present: dict[str, StoredDocument], *, owner: str = ""
) -> list[Change]:
    """The changes that ``apply`` would make.

    With an owner, documents that it applied earlier and that are no longer given are deleted.
    """
    written = list(written)
    changes = [
        Change(one.key, _difference(one, present.get(one.key)), one.place) for one in written
    ]
    if owner:
        named = {one.key for one in written}
        gone = [
            key for key, record in present.items() if record.owner == owner and key not in named
        ]
        changes += [Change(key, "withdrawn") for key in gone]
    return changes


def _difference(
    one: Written, record: StoredDocument | None
) -> Literal["created", "changed", "unchanged"]:
    if record is None:
        return "created"
    return "unchanged" if record.same_as(one.document) else "changed"


def apply(
    settings: Settings,
    written: Sequence[Written],
    *,
    owner: str = "",
    dry_run: bool = False,
    force: bool = False,
) -> list[Change]:
    """Put documents in force; returns what that did. What already holds is not sent again.

    Each change of a policy is a new revision, which is kept under a key of its own. Raises
    ``DocumentsError`` for what another owner has applied, unless forced, and for policies that
    contradict those in force.
    """
    everything = stored(settings)
    present = {key: one for key, one in everything.items() if REVISION_MARK not in key}
    changes = plan(written, present, owner=owner)
    if not force:
        _refuse_foreign(changes, present, owner)
    withdrawn = {change.key for change in changes if change.what == "withdrawn"}
    changed = {change.key for change in changes if change.what in ("created", "changed")}
    if changed:
        staying = {key: one for key, one in present.items() if key not in withdrawn}
        if problems := contradictions(written, staying):
            raise DocumentsError(problems)
    if not dry_run:
        documents = {one.key: one.document for one in written}
        records: list[tuple[str, bytes | None, str]] = []
        guarded: list[tuple[str, bytes | None]] = []
        for change in changes:
            if change.what == "unchanged":
                continue
            file = str(change.place.file) if change.place and owner else ""
            document = documents.get(change.key)
            if isinstance(document, Policy):
                number = _next_revision(everything, change.key)
                document = document.model_copy(update={"revision": number})
                # The kept revision first: a document in force is always one that is kept.
                kept = f"{change.key}{REVISION_MARK}{number}"
                records.append((kept, encode(document), file))
            if isinstance(document, Schedule):
                document = document.model_copy(update={"applied_us": time.time_ns() // 1_000})
            if change.key.startswith(POLICY_PREFIX):
                guarded.append((change.key, _guarded(document)))
            value = None if document is None else encode(document)
            records.append((change.key, value, file))
        _send_guardrails(settings, guarded)
        _send(settings, records, owner)
    return changes


def _guarded(document: AnyDocument | None) -> bytes | None:
    """The part of a policy that agents read; None where it has no guardrails, or is withdrawn."""
    part = document.guarded if isinstance(document, Policy) else None
    return None if part is None else encode_guarded(part)


def _send_guardrails(settings: Settings, records: Sequence[tuple[str, bytes | None]]) -> None:
    """Send the policies' guardrails to agents. Raises ``KafkaUnreachable``.

    Called before the documents are in force: a command that fails in between is repeated, and sends
    both again.
    """
    if not records:
        return
    name = topic(settings.topic_prefix, "guardrails")
    if all(value is None for _, value in records) and not topics.has_topic(settings, name):
        return  # an installation of an older release: no agent has guardrails
    topics.require_topic(settings, name)
    client = producer(settings, **{"message.timeout.ms": round(SEND_S * 1000), "log_level": 0})
    outgoing = [Outgoing(name, key.encode(), value, []) for key, value in records]
    send_and_wait(client, outgoing, SEND_S + 5)


def _next_revision(everything: dict[str, StoredDocument], key: str) -> int:
    beginning = f"{key}{REVISION_MARK}"
    known = [
        one.revision
        for name, one in everything.items()
        if name == key or name.startswith(beginning)
    ]
    return max(known, default=0) + 1


def _refuse_foreign(
    changes: Iterable[Change], present: dict[str, StoredDocument], owner: str
) -> None:
    """What a watched folder holds is changed in that folder; it would write it back anyway."""
    problems = [
        Problem(
            change.place,
            f"{change.key} is owned by {present[change.key].owned_by}: change it there, or use "
            "--force",
        )
        for change in changes
        if change.what == "changed"
        and change.place
        and present[change.key].owner not in ("", owner)
    ]
    if problems:
        raise DocumentsError(problems)


def withdraw(settings: Settings, key: str) -> None:
    """Take a document out of force: its record is followed by a tombstone."""
    if key.startswith(POLICY_PREFIX):
        _send_guardrails(settings, [(key, None)])
    _send(settings, [(key, None, "")], "")


def _send(settings: Settings, records: Sequence[tuple[str, bytes | None, str]], owner: str) -> None:
    """Send keys, values and files; every record acknowledged, in order.

    Raises ``KafkaUnreachable``.
    """
    if not records:
        return
    client = producer(settings, **{"message.timeout.ms": round(SEND_S * 1000), "log_level": 0})
    headers = [("content-type", b"application/json")]
    if owner:
        headers.append((OWNER_HEADER, owner.encode()))
    name = topic(settings.topic_prefix, "config")
    outgoing = [
        Outgoing(
            name,
            key.encode(),
            value,
            # The name of a file may have bytes that are not UTF-8.
            [*headers, (FILE_HEADER, file.encode(errors="replace"))] if file else headers,
        )
        for key, value, file in records
    ]
    # Longer than the producer's own timeout, whose error names the cause.
    send_and_wait(client, outgoing, SEND_S + 5)


def to_yaml(stored: StoredDocument) -> str:
    """A document as people write it: what is as by default is left out."""
    import yaml

    return yaml.safe_dump(to_data(stored), sort_keys=False, allow_unicode=True)


def to_data(stored: StoredDocument) -> dict[str, Any]:
    """A document as plain data without defaults; durations in the form of documents."""
    try:
        data = json.loads(
            DOCUMENT.validate_json(stored.value).model_dump_json(exclude_defaults=True)
        )
    except ValidationError:  # of a newer version: shown as it is
        return {"kind": stored.kind, "name": stored.name, **msgspec.json.decode(stored.value)}
    shortened: dict[str, Any] = shorten_durations(
        {"kind": stored.kind, "name": stored.name, **data}
    )
    return shortened
