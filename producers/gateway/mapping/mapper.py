"""A span as a step. See ``names`` for which attribute fills which field."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from stepstream.producers.gateway.mapping import contents, kinds, usage_counts
from stepstream.producers.gateway.mapping.attributes import AttributeReader, Read, provider_of
from stepstream.producers.gateway.mapping.dropped_spans import DroppedSpans
from stepstream.producers.gateway.mapping.logged_contents import LoggedContents
from stepstream.producers.gateway.mapping.names import Field as F
from stepstream.producers.gateway.mapping.options import DROP, KEEP, Options
from stepstream.producers.gateway.mapping.privacy import Privacy
from stepstream.producers.gateway.mapping.published_calls import PublishedCalls, SpanKey
from stepstream.producers.gateway.mapping.spans import (
    KIND_CONSUMER,
    KIND_SERVER,
    REMOTE,
    REMOTE_KNOWN,
    STATUS_ERROR,
    STATUS_UNSET,
    Resource,
    Span,
)
from stepstream.producers.gateway.mapping.texts import NOTHING, parsed, text_of, without_media
from stepstream.schemas.capture import OFF, is_sampled
from stepstream.schemas.ids import ZERO_STEP_ID, ZERO_TRACE_ID
from stepstream.schemas.step import TRACE_STATE_KEY, AnyStep, DocumentStruct
from stepstream.schemas.usage import NO_TOKENS

MAX_ATTRIBUTE_CHARS: Final = 2_048
MAX_DOCUMENT_CHARS: Final = 4_096
MAX_NAME_CHARS: Final = 512
MAX_TASK_CHARS: Final = 64
OUR_TRACE_STATE: Final = f"{TRACE_STATE_KEY}="
"""In the trace state of spans whose parent reports to Stepstream too: it is waited for like any
parent.
"""

# Members of an enum cost an attribute access and a conversion each: plain numbers where every span
# comes by.
_PROJECT: Final = int(F.PROJECT)
_AGENT, _AGENT_VERSION, _ENVIRONMENT = int(F.AGENT), int(F.AGENT_VERSION), int(F.ENVIRONMENT)
_SESSION, _USER, _TASK = int(F.SESSION), int(F.USER), int(F.TASK)
_LEVEL, _TOOL_STATUS, _HTTP_STATUS = int(F.LEVEL), int(F.TOOL_STATUS), int(F.HTTP_STATUS)
_REPEATED: Final = tuple(map(int, (F.INPUT_TOKENS, F.OUTPUT_TOKENS, F.CACHED_TOKENS, F.COST)))
_MODELS: Final = tuple(map(int, (F.MODEL, F.REQUEST_MODEL)))
_KIND_FIELDS: Final = tuple(
    map(int, (F.LANGSMITH_KIND, F.OPERATION, F.OPENINFERENCE_KIND, F.OTHER_KIND))
)
_LANGSMITH_KIND: Final = int(F.LANGSMITH_KIND)
_OUTPUT, _TOOL_CALLS, _LOGGED_EVENTS = int(F.OUTPUT), int(F.TOOL_CALLS), int(F.LOGGED_EVENTS)
_FIRST: Final = tuple(map(int, (F.FIRST_CHUNK_S, F.FIRST_CHUNK_MS, F.FIRST_TOKEN_AT)))
_LARGEST_NS: Final = (1 << 63) - 1
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(AnyStep).decode


class Refused(msgspec.Struct, frozen=True):
    """A span that is not taken: why, as a key of ``stepstream.schemas.accept.REASONS``, and in
    words.
    """

    reason: str
    detail: str


class Origin(msgspec.Struct, frozen=True):
    """Where and when a span was received."""

    project: str
    now_us: int
    projects: frozenset[str] = frozenset()
    """The projects that a span may name in the attribute ``stepstream.project``; empty: any."""


def _is_id(text: str, digits: int, zero: str) -> bool:
    # ``fromhex`` takes a third of the time of a set of digits; it skips spaces and takes upper
    # case, so both are excluded here.
    if len(text) != digits or text == zero:
        return False
    try:
        return len(bytes.fromhex(text)) * 2 == digits and text == text.lower()
    except ValueError:
        return False


def id_problem(trace_id: str, span_id: str) -> str:
    """What is wrong with a span's ids; empty where nothing is."""
    # Both at once: nearly all are valid.
    is_zero = trace_id == ZERO_TRACE_ID or span_id == ZERO_STEP_ID
    if not is_zero and len(trace_id) == 32 and _is_id(trace_id + span_id, 48, ""):
        return ""
    for what, text, digits, zero in (
        ("trace", trace_id, 32, ZERO_TRACE_ID),
        ("span", span_id, 16, ZERO_STEP_ID),
    ):
        if _is_id(text, digits, zero):
            continue
        if not text:
            return f"it has no {what} id"
        if text == zero:
            return f"the {what} id is all zero"
        if len(text) == (24 if digits == 32 else 12):
            return (
                f"the {what} id {text!r} looks like base64: OTLP/JSON writes ids in hex, "
                f"{digits} digits"
            )
        return f"the {what} id must be {digits} hex digits, not {text[:40]!r}"
    return ""


class _Source(msgspec.Struct, frozen=True, gc=False):
    """A resource's part of the fields of all its spans."""

    agent: str
    agent_version: str
    environment: str
    session_id: str
    user_id: str
    project: Any
    scope: str


def _source_of(resource: Resource, environment: str) -> _Source:
    given = resource.attributes
    service = text_of(given.get("service.name"))
    return _Source(
        agent="" if service.startswith("unknown_service") else _short(service),
        agent_version=_short(given.get("service.version") or ""),
        environment=_short(
            given.get("deployment.environment.name")
            or given.get("deployment.environment")
            or environment
        ),
        session_id=_short(given.get("session.id") or ""),
        user_id=_short(given.get("user.id") or ""),
        project=given.get("stepstream.project"),
        scope=resource.scope[:MAX_NAME_CHARS],
    )


class Mapper:
    """Maps spans to steps. Not to be used by several threads at a time."""

    def __init__(
        self,
        options: Options | None = None,
        logged: LoggedContents | None = None,
        dropped: DroppedSpans | None = None,
        published: PublishedCalls | None = None,
    ) -> None:
        """``logged`` has the contents that came as log records; ``published`` keeps calls for
        those that come later; ``dropped`` has the spans that other mappers of this process have
        dropped.
        """
        self.options = options or Options()
        self._logged = logged
        self._published = published
        self._dropped: DroppedSpans | None = None
        if self.options.other_spans == DROP:
            self._dropped = dropped or DroppedSpans()
        self._reader = AttributeReader()
        self._privacy = Privacy(self.options)
        # The limits of contents by kind, and that of the step in progress.
        self._limits: dict[str, int] = {}
        self._limit = OFF
        # Spans of one resource follow each other.
        self._resource: Resource | None = None
        self._source = _source_of(Resource(), "")

    def steps(self, span: Span, origin: Origin) -> list[AnyStep] | Refused:
        """The steps that a span stands for: itself, and the tool selections of a model's answer.

        Nothing for a span that is dropped; ``Refused`` where its ids or times cannot be used.
        """
        if problem := id_problem(span.trace_id, span.span_id):
            return Refused("invalid_field", problem)
        if span.resource is not self._resource:
            self._resource = span.resource
            self._source = _source_of(span.resource, self.options.environment)
        read = self._reader.read(span.attributes)
        project = self._project(read, origin)
        if project is None:
            named = text_of(read.values[F.PROJECT])
            return Refused("invalid_field", f"the key may not send for the project {named[:64]!r}")
        start_us, end_us = span.start_ns // 1_000, max(span.start_ns, span.end_ns) // 1_000
        if problem := self._time_problem(start_us, end_us, project, origin.now_us):
            return Refused("time_out_of_range", problem)
        kind = _kind_of(span, read)
        is_other = kind == kinds.OTHER and not read.known
        parent = span.parent_id
        if self._dropped is not None:
            if is_other and self._dropped.drops(span):
                return []
            parent = self._dropped.keep(span)
        step = AnyStep(
            trace_id=span.trace_id,
            step_id=span.span_id,
            parent_step_id=_parent_of(parent, span.span_id),
            kind=kind,
            name=_name_of(span, read),
            project=project,
            start_time=start_us,
            end_time=end_us,
        )
        self._limit = self._content_limit(kind, span.trace_id)
        self._identify(step, span, read)
        _set_status(step, span, read)
        if read.values[F.PENDING] == "pending_span":
            _make_start(step, read)
        if not is_other or self.options.other_spans == KEEP:
            if self._logged:
                found = self._logged.of((project, span.trace_id, span.span_id))
                span.events = [*span.events, *found] if found else span.events
            self._fill(step, span, read)
        if kind != kinds.LLM:
            self._privacy.clean(step)
            return [step]
        is_complete = step.phase == "start" or (step.input and step.output)
        if self._published is not None and not is_complete:
            # Not cleaned: a redaction hook would be applied to its texts twice.
            key = (project, span.trace_id, span.span_id)
            self._published.add(key, _encode(step), origin.now_us)
            # Another thread may have handled its log records between the look-up above and this
            # line: it did not find the call, so nothing else would add them.
            self._add_logged(step, key)
        return self._with_selections(step)

    def amended(self, key: SpanKey) -> list[AnyStep]:
        """A published call once more, with contents that were logged since, and the tools that its
        answer chose; nothing where there is no such call, or none of its contents is new.
        """
        record = None if self._published is None else self._published.get(key)
        if record is None or self._logged is None:
            return []
        step = _decode(record)
        self._limit = self._content_limit(step.kind, step.trace_id)
        if not self._add_logged(step, key):
            return []
        step.amends = True
        return self._with_selections(step)

    def _add_logged(self, step: AnyStep, key: SpanKey) -> bool:
        """Fill a call's input and output, where it has none, with what was logged of it. Returns
        whether there was something to add.
        """
        events = self._logged.of(key) if self._logged is not None else []
        if not events:
            return False
        asked, answered = contents.from_events(events)
        is_new = False
        if asked and not step.input:
            step.input, step.input_bytes = self._content(asked, self._limit)
            is_new = bool(step.input)
        if answered and not step.output:
            step.output, step.output_bytes = self._content(answered, self._limit)
            is_new = is_new or bool(step.output)
        return is_new

    def _with_selections(self, step: AnyStep) -> list[AnyStep]:
        steps = [step, *self._selections(step)]
        for one in steps:
            self._privacy.clean(one)
        return steps

    def start(self, span: Span, origin: Origin) -> AnyStep | Refused | None:
        """The start of an open span's step, with what is known of it so far.

        None for a span that is dropped, or would be, if nothing more became known of it.
        """
        steps = self.steps(span, origin)
        if isinstance(steps, Refused):
            return steps
        if not steps:
            return None
        step = steps[0]
        # What only an ended step has; an instrumentation may have set some of it early.
        step.phase, step.end_time = "start", None
        step.output, step.output_bytes, step.documents = "", None, []
        step.usage = step.cost_usd = step.first_token_time = None
        step.usage_may_repeat, step.cost_source = False, ""
        return step

    def _project(self, read: Read, origin: Origin) -> str | None:
        """The step's project; None where the span names one that its key does not allow."""
        named = read.values[_PROJECT] or self._source.project
        if named is None or (wanted := text_of(named).strip()[:MAX_NAME_CHARS]) == "":
            return origin.project
        if origin.projects and wanted not in origin.projects:
            return None
        return wanted

    def _time_problem(self, start_us: int, end_us: int, project: str, now_us: int) -> str:
        limits = self.options.limits
        if start_us <= 0:
            return "it has no start time"
        if end_us > now_us + limits.max_future_us or end_us * 1_000 > _LARGEST_NS:
            return "its times lie in the future: they are nanoseconds since 1970"
        age_us = limits.age_us(project)
        if start_us < now_us - age_us:
            days = age_us // 86_400_000_000
            return f"it started more than {days} days ago, longer than steps are kept"
        return ""

    def _identify(self, step: AnyStep, span: Span, read: Read) -> None:
        """Set agent, environment, session, user and task."""
        values, source = read.values, self._source
        agent, version, environment = values[_AGENT], values[_AGENT_VERSION], values[_ENVIRONMENT]
        session, user = values[_SESSION], values[_USER]
        step.agent = _short(agent) if agent else source.agent
        step.agent_version = _short(version) if version else source.agent_version
        step.environment = _short(environment) if environment else source.environment
        step.session_id = _short(session) if session else source.session_id
        step.user_id = _short(user) if user else source.user_id
        if span.parent_id == "" and (task := values[_TASK]) is not None:
            text = text_of(task).strip()
            # A task is a type of work with few values; a trace's name may be a whole prompt.
            step.task = text if len(text) <= MAX_TASK_CHARS and "\n" not in text else ""
        # A remote parent that reports here too will arrive, so the span must not stand in for the
        # root.
        if span.parent_id and OUR_TRACE_STATE not in span.trace_state:
            if span.flags & REMOTE_KNOWN:
                step.parent_remote = bool(span.flags & REMOTE)
            elif span.kind in (KIND_SERVER, KIND_CONSUMER):
                # What a server or a consumer answers was sent by another process.
                step.parent_remote = True
            else:
                step.parent_unknown = True

    def _fill(self, step: AnyStep, span: Span, read: Read) -> None:
        """Contents, usage and attributes."""
        values = read.values
        if step.kind == kinds.LLM:
            self._fill_call(step, span, read)
        elif step.kind == kinds.TOOL:
            step.tool = _short(
                values[F.TOOL] or values[F.NAME] or values[F.CHAT_NAME] or ""
            ) or kinds.tool_in_name(step.name)
        elif step.kind == kinds.RETRIEVAL:
            self._fill_documents(step, span, read)
            step.model = _short(values[F.MODEL] or values[F.REQUEST_MODEL] or "")
            step.tool = _short(values[F.TOOL] or "")
        given, taken = _contents_of(step.kind, span, read)
        step.input, step.input_bytes = self._content(given, self._limit)
        step.output, step.output_bytes = self._content(taken, self._limit)
        if step.kind == kinds.TOOL and span.status == STATUS_UNSET and step.status == "ok":
            _set_status_from_result(step, taken)
        step.first_token_time = _first_token_us(step, span, read)
        step.attributes = self._attributes(step, read)

    def _fill_call(self, step: AnyStep, span: Span, read: Read) -> None:
        values = read.values
        if read.names[_OUTPUT] in usage_counts.USAGE_IN_OUTPUT:
            usage_counts.take_from_output(values)
        asked = _short(values[F.REQUEST_MODEL] or "")
        step.model = _short(values[F.MODEL] or "") or asked
        if values[F.PROVIDER] is not None:
            named = _short(values[F.PROVIDER])
            step.provider = provider_of(named)[:MAX_NAME_CHARS]
        usage = usage_counts.usage_of(values, span.resource.scope)
        if usage is not None and usage != NO_TOKENS:
            step.usage = usage
            step.usage_may_repeat = True
        cost = usage_counts.cost_of(values)
        # Some instrumentations write a cost of 0 for models without a known price: with usage the
        # step is priced here instead.
        if cost is not None and (Decimal(cost) > 0 or step.usage is None):
            step.cost_usd = Decimal(cost)
            step.cost_source = "given"
            step.usage_may_repeat = True
        # The answer names the exact version of the model, the request often an alias.
        if asked and asked != step.model:
            read.rest.setdefault("request_model", asked)

    def _fill_documents(self, step: AnyStep, span: Span, read: Read) -> None:
        found = read.values[F.DOCUMENTS]
        items = parsed(found) if found is not None else None
        if not isinstance(items, list) or not items:
            items = (
                contents.documents_of(read.flat.get("documents", {}))
                or contents.documents_in_events(span.events)
                or contents.documents_in(read.values[F.OUTPUT])
            )
        step.documents = [
            self._document(item) for item in items[: self.options.limits.max_documents]
        ]

    def _document(self, item: Any) -> DocumentStruct:
        document = _document(item)
        content = self._privacy.shortened(document.content, MAX_DOCUMENT_CHARS)
        content, _ = self._privacy.limited(content, None, self._limit)
        return DocumentStruct(id=document.id, score=document.score, content=content)

    def _content_limit(self, kind: str, trace_id: str) -> int:
        options = self.options
        if not is_sampled(trace_id, options.capture.sample):
            return OFF
        limit = self._limits.get(kind)
        if limit is None:
            limit = options.content_bytes_by_kind.get(kind, options.max_content_bytes)
            limit = self._limits[kind] = min(limit, options.capture.limit(kind, trace_id))
        return limit

    def _content(self, value: Any, limit: int) -> tuple[str, int | None]:
        """A content as it is sent, and its size where it was cut."""
        text = value if value.__class__ is str else text_of(value)
        if not text:
            return "", None
        return self._privacy.limited(without_media(text), None, limit)

    def _attributes(self, step: AnyStep, read: Read) -> dict[str, str]:
        """Attributes that fill no field of a step, as texts."""
        kept: dict[str, str] = {}
        values = read.values
        if self._source.scope:
            kept["otel.scope.name"] = self._source.scope
        if values[F.TOOL_CALL_ID] is not None:
            kept["tool_call_id"] = _short(values[F.TOOL_CALL_ID])
        if step.kind != kinds.LLM:
            # A parent repeats what its children used: kept to be read, and never counted.
            for field in _REPEATED:
                if values[field] is not None:
                    kept[read.names[field]] = _short(values[field])
            for field in _MODELS:
                if values[field] is not None and not step.model:
                    kept[read.names[field]] = _short(values[field])
        most = self.options.limits.max_attributes
        capture = self._limit != OFF
        for name, value in read.rest.items():
            if len(kept) >= most:
                break
            if not capture and _may_hold_content(name):
                continue
            text = value if value.__class__ is str else text_of(value)
            if len(text) > MAX_ATTRIBUTE_CHARS:
                text = self._privacy.shortened(without_media(text), MAX_ATTRIBUTE_CHARS)
            kept[name[:MAX_NAME_CHARS]] = text
        return kept

    def _selections(self, step: AnyStep) -> list[AnyStep]:
        """Steps for the tools that a model's answer chose, because no span records that choice."""
        made: list[AnyStep] = []
        limit = self._content_limit("tool_selection", step.trace_id)
        for number, call in enumerate(contents.tool_calls_of(step.output)):
            text, size = self._content(call.arguments, limit)
            made.append(
                AnyStep(
                    trace_id=step.trace_id,
                    step_id=contents.derived_step_id(
                        step.trace_id, step.step_id, "tool_selection", call.id or str(number)
                    ),
                    parent_step_id=step.step_id,
                    kind="tool_selection",
                    name=call.name[:MAX_NAME_CHARS] or "tool",
                    tool=call.name[:MAX_NAME_CHARS],
                    project=step.project,
                    environment=step.environment,
                    agent=step.agent,
                    agent_version=step.agent_version,
                    session_id=step.session_id,
                    user_id=step.user_id,
                    start_time=step.end_time or step.start_time,
                    end_time=step.end_time or step.start_time,
                    input=text,
                    input_bytes=size,
                    attributes={"tool_call_id": call.id[:MAX_NAME_CHARS]} if call.id else {},
                )
            )
        return made


def _short(value: Any) -> str:
    text = value if value.__class__ is str else text_of(value)
    return text if len(text) <= MAX_NAME_CHARS else text[:MAX_NAME_CHARS]


def _parent_of(parent: str, own: str) -> str:
    """The parent's id; empty for a root, and for a parent that is no possible one."""
    return parent if parent and parent != own and _is_id(parent, 16, ZERO_STEP_ID) else ""


def _name_of(span: Span, read: Read) -> str:
    return _short(span.name or read.values[F.NAME] or read.values[F.GRAPH_NODE] or "span")


def kind_of(span: Span) -> str:
    """The kind of a span by its name and attributes so far, wherever it stands in its trace."""
    return _kind_of(span, AttributeReader().read(span.attributes), may_be_root=False)


def _kind_of(span: Span, read: Read, may_be_root: bool = True) -> str:
    """The kind of a span.

    A node of a LangGraph graph first, then the kind that an attribute names, then the one derived
    from the span's name and attributes.
    """
    values = read.values
    node = values[F.NODE]
    if node is None and (metadata := values[F.METADATA]) is not None:
        text = text_of(metadata)
        decoded = parsed(text) if '"langgraph_node"' in text else None
        node = decoded.get("langgraph_node") if isinstance(decoded, dict) else None
    if node is not None and node == span.name:
        return "state_update"
    if span.name.endswith("(merged tools)"):
        return kinds.OTHER  # Google ADK: the answers of parallel calls once more, in one span
    named = _named_kind(read)
    if named != kinds.OTHER and named is not None:
        return named
    if named is None or values[F.OTHER_KIND] is not None:
        derived = _derived_kind(span, read)
        if derived is not None:
            return derived
    if values[F.LANGSMITH_KIND] is not None and values[F.LANGSMITH_KIND] != "chain":
        return kinds.OTHER
    return kinds.AGENT if may_be_root and _is_agent_root(span) else kinds.OTHER


def _named_kind(read: Read) -> str | None:
    """The first known kind that an attribute names; ``other`` where no named kind is known; None
    where no attribute names a kind.
    """
    found: str | None = None
    for field in _KIND_FIELDS:
        word = read.values[field]
        if word is None:
            continue
        kind = kinds.named_kind(word)
        if kind == kinds.LLM and word in kinds.UNCOUNTED and read.values[F.INPUT_TOKENS] is None:
            kind = kinds.OTHER
        if kind is not None and (kind != kinds.OTHER or field == _LANGSMITH_KIND):
            return kind
        found = kinds.OTHER
    return found


def _hinted_kind(values: list[Any]) -> str | None:
    """The kind from attributes that only some spans of an instrumentation have, else None."""
    for field in (F.REQUEST_TYPE, F.BRAINTRUST_KIND):
        word = values[field]
        if word is None:
            continue
        decoded = parsed(word)
        kind = kinds.named_kind(decoded.get("type") if isinstance(decoded, dict) else word)
        if kind not in (None, kinds.OTHER):
            return kind
    if values[F.HAYSTACK_TYPE] is not None:
        return kinds.haystack_kind(values[F.HAYSTACK_TYPE])
    return None


def _derived_kind(span: Span, read: Read) -> str | None:
    """The kind derived from name, tool, agent, model and tokens; None where it does not follow."""
    values = read.values
    if (named := kinds.kind_by_name(span.name, span.resource.scope)) is not None:
        return named
    if (hinted := _hinted_kind(values)) is not None:
        return hinted
    if values[F.TOOL] is not None or values[F.TOOL_CALL_ID] is not None:
        return kinds.TOOL
    if read.names[F.AGENT] in ("agent_name", "gen_ai.agent.name") and (
        values[F.REQUEST_MODEL] is not None or values[F.OUTPUT] is not None
    ):
        return kinds.AGENT
    model = values[F.MODEL] is not None or values[F.REQUEST_MODEL] is not None
    if model and (values[F.INPUT_TOKENS] is not None or values[F.TOKEN_DETAILS] is not None):
        return kinds.LLM
    if values[F.DOCUMENTS] is not None or "documents" in read.flat:
        return kinds.RETRIEVAL
    output = values[F.OUTPUT]
    if output.__class__ is str and '"tool_call_id"' in output:
        # LangChain's message of a tool, as the callback handlers of some backends write it.
        message = parsed(output)
        if isinstance(message, dict) and message.get("type") == "tool":
            return kinds.TOOL
    return None


_REQUESTS: Final = ("http.", "url.", "db.", "rpc.", "messaging.", "net.", "server.", "asgi.")


def _is_agent_root(span: Span) -> bool:
    """Whether a root is the run of an agent rather than a request to a server that contains one."""
    return (
        not span.parent_id
        and span.kind != KIND_SERVER
        and not any(name.startswith(_REQUESTS) for name in span.attributes)
    )


def _set_status(step: AnyStep, span: Span, read: Read) -> None:
    values = read.values
    if span.status != STATUS_ERROR and (
        values[_LEVEL] is None and values[_TOOL_STATUS] is None and values[_HTTP_STATUS] is None
    ):
        return  # nearly all spans
    http = usage_counts.count_of(values[F.HTTP_STATUS])
    failed = (
        span.status == STATUS_ERROR
        or text_of(values[F.LEVEL]).upper() == "ERROR"
        or text_of(values[F.TOOL_STATUS]).lower() in ("error", "true")
        or (http is not None and 500 <= http < 600)
    )
    if not failed:
        return
    kind, message = contents.exception_of(span)
    step.status = "error"
    step.error_type = _short(values[F.ERROR_TYPE] or kind or (str(http) if http else ""))
    text = span.status_message or message or text_of(values[F.ERROR_MESSAGE])
    step.error_message = text[:4_096]


def _make_start(step: AnyStep, read: Read) -> None:
    """Make a pending span of Logfire a start event.

    Such a span has an id of its own; its parent is the span that it announces.
    """
    step.phase = "start"
    step.end_time = None
    if step.parent_step_id:
        step.step_id = step.parent_step_id
    parent = text_of(read.values[F.PENDING_PARENT]).lower()
    step.parent_step_id = _parent_of(parent, step.step_id)


def _contents_of(kind: str, span: Span, read: Read) -> tuple[Any, Any]:
    """Input and output, each from the first attribute or event that has it."""
    values, flat = read.values, read.flat
    given, taken = values[F.INPUT], values[F.OUTPUT]
    if given is None:
        given = _flat_messages(read, "input", "prompt")
        if given is None and values[F.TOOL_PARAMETERS] is not None:
            given = _arguments(values[F.TOOL_PARAMETERS])
    elif kind == kinds.LLM and values[F.SYSTEM_INSTRUCTIONS] is not None:
        given = _with_instructions(text_of(values[F.SYSTEM_INSTRUCTIONS]), text_of(given))
    if taken is None and ("output" in flat or "completion" in flat):
        taken = _flat_messages(read, "output", "completion")
    events = span.events
    if values[_LOGGED_EVENTS] is not None and not events:
        events = contents.logged_events(values[_LOGGED_EVENTS])
    if (given is None or taken is None) and events:
        asked, answered = contents.from_events(events)
        given = asked if given is None else given
        taken = answered if taken is None else taken
    if kind != kinds.LLM:
        return given, values[_TOOL_CALLS] if taken is None else taken
    if (calls := values[_TOOL_CALLS]) is not None:
        return given, _text_and_calls(taken, calls)
    return given, _with_calls(read, taken)


def _text_and_calls(taken: Any, calls: Any) -> Any:
    """One answer of its text and its tool calls, which came in two attributes."""
    if taken is None or taken == "":
        return calls
    return text_of({"text": parsed(taken), "toolCalls": parsed(calls)})


def _flat_messages(read: Read, *groups: str) -> Any:
    for group in groups:
        flat = read.flat.get(group)
        if flat:
            return contents.messages_of(flat)
    return None


def _with_calls(read: Read, taken: Any) -> Any:
    """The output; that of a call whose output is only text, with the tools that it chose, where
    they stand elsewhere.
    """
    flat = read.flat.get("output") or read.flat.get("completion")
    if not flat or taken is None or taken.__class__ is not str:
        return taken
    if not any("tool_calls" in path for fields in flat.values() for path in fields):
        return taken
    return taken if contents.tool_calls_of(taken) else contents.messages_of(flat)


def _arguments(value: Any) -> Any:
    """A tool's parameters where they are arguments; None where they are its declared schema."""
    parameters = parsed(value)
    if isinstance(parameters, dict):
        if "properties" in parameters and "type" in parameters:
            return None
        if parameters and all(
            isinstance(item, dict) and {"type", "description"} <= item.keys()
            for item in parameters.values()
        ):
            return None
    return None if value in NOTHING else value


def _with_instructions(instructions: str, messages: str) -> str:
    """The messages with the system's instructions before them, as one JSON list."""
    parts = instructions if instructions.startswith("[") else text_of([instructions])
    system = '{"role":"system","parts":' + parts + "}"
    if not messages.startswith("["):
        return messages
    rest = messages[1:].lstrip()
    return f"[{system}]" if rest.startswith("]") else f"[{system},{rest}"


_IDS: Final = ("id", "document_id", "doc_id", "id_", "node_id")
_SCORES: Final = ("score", "relevance_score", "similarity_score", "similarity")
_TEXTS: Final = ("content", "text", "page_content", "pageContent", "document")


def _document(item: Any) -> DocumentStruct:
    if not isinstance(item, dict):
        return DocumentStruct(content=text_of(item))
    score: Any = next((item[key] for key in _SCORES if item.get(key) is not None), None)
    is_score = score.__class__ is float or score.__class__ is int
    content = next((item[key] for key in _TEXTS if item.get(key)), "")
    about = item.get("metadata")
    found = next((item[key] for key in _IDS if item.get(key)), "")
    if not found and isinstance(about, dict):
        found = next((about[key] for key in (*_IDS, "doc_uri", "source") if about.get(key)), "")
    return DocumentStruct(
        id=_short(found),
        score=float(score) if is_score and abs(score) < 1e300 else None,
        content=text_of(content),
    )


def _set_status_from_result(step: AnyStep, taken: Any) -> None:
    """Set the status of a tool call whose result is an error.

    Instrumentations leave the status of failed tools unset.
    """
    text = taken if taken.__class__ is str else text_of(taken)
    if text.startswith(("Error:", "Error executing tool")):
        step.status, step.error_message = "error", text[:4_096]
        return
    if "rror" not in text[:4_096]:
        return
    result = parsed(taken)
    if not isinstance(result, dict):
        return
    error = result.get("error")
    if (
        result.get("isError") is True
        or result.get("is_error") is True
        or result.get("status") == "error"
        or (error not in (None, "", False, {}, []) and not result.get("result"))
    ):
        step.status = "error"
    else:
        return
    message = error if error not in (None, "", False, True) else result.get("content", text)
    step.error_message = text_of(message)[:4_096]


def _first_token_us(step: AnyStep, span: Span, read: Read) -> int | None:
    """Time of the first streamed output in microseconds; None where the span has none, or where
    the time lies outside the step.
    """
    values = read.values
    found: int | None = None
    if not span.events and all(values[field] is None for field in _FIRST):
        return None
    for field, unit_us in ((F.FIRST_CHUNK_S, 1_000_000), (F.FIRST_CHUNK_MS, 1_000)):
        wait = values[field]
        if found is None and isinstance(wait, int | float) and 0 <= wait < 1e9:
            found = step.start_time + round(wait * unit_us)
    if found is None and values[F.FIRST_TOKEN_AT] is not None:
        found = _iso_us(text_of(values[F.FIRST_TOKEN_AT]))
    if found is None:
        for event in span.events:
            if event.name == "First Token Stream Event":
                found = event.time_ns // 1_000
                break
    end = step.end_time
    if found is None or not step.start_time <= found or (end is not None and found > end):
        return None
    return found


def _iso_us(text: str) -> int | None:
    """Microseconds of an ISO 8601 time, which may stand in quotes twice."""
    try:
        moment = datetime.fromisoformat(text.strip('"\\ '))
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)


_CONTENT_WORDS: Final = ("message", "prompt", "content", "completion", "input", "output", "tools.")


def _may_hold_content(name: str) -> bool:
    low = name.lower()
    return any(word in low for word in _CONTENT_WORDS)
