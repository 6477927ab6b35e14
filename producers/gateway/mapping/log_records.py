"""Log records as steps: contents that instrumentations log apart from their spans, and results of
evaluations.

Each such record is a step of its own, a child of the span that it was logged in: it is
acknowledged before the span is known. Contents are also kept in memory: they fill the span's step
if that comes later, and if it came before it is sent again with them (``Mapper.amended``). Other
log records are no part of an agent's work and yield nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stepstream.producers.gateway.mapping import contents
from stepstream.producers.gateway.mapping.logged_contents import LoggedContents
from stepstream.producers.gateway.mapping.mapper import (
    MAX_ATTRIBUTE_CHARS,
    MAX_NAME_CHARS,
    Origin,
    Refused,
    id_problem,
)
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.privacy import Privacy
from stepstream.producers.gateway.mapping.spans import LogRecord
from stepstream.producers.gateway.mapping.texts import parsed, text_of, without_media
from stepstream.schemas.step import AnyStep

EVALUATION: Final = "gen_ai.evaluation.result"
PROJECT: Final = "stepstream.project"


def name_of(record: LogRecord) -> str:
    """The event's name, from its field or from the attribute that older instrumentations use."""
    return record.event_name or text_of(record.attributes.get("event.name"))


class LogMapper:
    """Maps log records to steps."""

    def __init__(self, options: Options, logged: LoggedContents | None = None) -> None:
        """``logged`` keeps contents for the spans that they belong to."""
        self.options = options
        self._logged = logged
        self._privacy = Privacy(options)

    def steps(self, record: LogRecord, origin: Origin) -> list[AnyStep] | Refused:
        """The step that a record stands for; nothing for a record that is no content event and no
        evaluation.
        """
        name = name_of(record)
        if name != EVALUATION and name not in contents.CONTENT_EVENTS:
            return []
        if problem := id_problem(record.trace_id, record.span_id):
            return Refused("invalid_field", f"{problem}, so it belongs to no run")
        if named := _named_project(record):
            if origin.projects and named not in origin.projects:
                detail = f"the key may not send for the project {named[:64]!r}"
                return Refused("invalid_field", detail)
            origin = msgspec.structs.replace(origin, project=named)
        time_us = record.time_ns // 1_000
        if not 0 < time_us <= origin.now_us + self.options.limits.max_future_us:
            return Refused("time_out_of_range", "its time is absent or lies in the future")
        if time_us < origin.now_us - self.options.limits.age_us(origin.project):
            return Refused("time_out_of_range", "it is older than steps are kept")
        step = self._step(record, origin, name, time_us)
        if name == EVALUATION:
            _fill_evaluation(step, record)
        else:
            self._fill_content(step, record, name, origin)
        self._privacy.clean(step)
        return [step]

    def _step(self, record: LogRecord, origin: Origin, name: str, time_us: int) -> AnyStep:
        resource = record.resource.attributes
        service = text_of(resource.get("service.name"))
        # The contents are part of the id: several records of a span may have the same name and
        # time.
        identity = text_of([record.attributes, record.body])
        return AnyStep(
            trace_id=record.trace_id,
            step_id=contents.derived_step_id(
                record.trace_id, record.span_id, name, str(record.time_ns), identity
            ),
            parent_step_id=record.span_id,
            kind="evaluation" if name == EVALUATION else "other",
            name=name[:MAX_NAME_CHARS],
            project=origin.project,
            agent="" if service.startswith("unknown_service") else service[:MAX_NAME_CHARS],
            environment=text_of(
                resource.get("deployment.environment.name")
                or resource.get("deployment.environment")
                or self.options.environment
            )[:MAX_NAME_CHARS],
            session_id=text_of(record.attributes.get("gen_ai.conversation.id"))[:MAX_NAME_CHARS],
            start_time=time_us,
            end_time=time_us,
        )

    def _fill_content(self, step: AnyStep, record: LogRecord, name: str, origin: Origin) -> None:
        body = parsed(record.body)
        event = contents.logged_event(name, record.time_ns, record.attributes, body)
        given, taken = contents.of_logged_event(event)
        step.input, step.input_bytes = self._content(given, step.trace_id)
        step.output, step.output_bytes = self._content(taken, step.trace_id)
        if self._logged is not None:
            span = (step.project, step.trace_id, step.parent_step_id)
            size = len(given) + len(taken)
            # It may be kept for minutes.
            kept = contents.compact(event)
            self._logged.add(span, step.step_id, kept, size, origin.now_us)
        for key in ("gen_ai.request.model", "gen_ai.response.id", "gen_ai.system"):
            if record.attributes.get(key):
                step.attributes[key] = text_of(record.attributes[key])[:MAX_NAME_CHARS]

    def _content(self, content: str, trace_id: str) -> tuple[str, int | None]:
        text = without_media(content)
        if not text:
            return "", None
        options = self.options
        limit = options.content_bytes_by_kind.get("other", options.max_content_bytes)
        # The messages of a model call, although the record is a step of its own.
        limit = min(limit, options.capture.limit("llm_call", trace_id))
        return self._privacy.limited(text, None, limit)


def _named_project(record: LogRecord) -> str:
    """The project that a record or its process names, as spans do; empty: none."""
    named = record.attributes.get(PROJECT) or record.resource.attributes.get(PROJECT)
    return text_of(named).strip()[:MAX_NAME_CHARS]


_EVALUATION_FIELDS: Final = {
    "gen_ai.evaluation.score.value": "score",
    "gen_ai.evaluation.score.label": "label",
    "gen_ai.evaluation.explanation": "explanation",
    "gen_ai.response.id": "response_id",
}


def _fill_evaluation(step: AnyStep, record: LogRecord) -> None:
    body = parsed(record.body)
    fields = record.attributes | (body if isinstance(body, dict) else {})
    named = text_of(fields.get("gen_ai.evaluation.name"))
    step.name = named[:MAX_NAME_CHARS] or EVALUATION
    for attribute, short in _EVALUATION_FIELDS.items():
        value = fields.get(attribute)
        if value is not None and value != "":
            step.attributes[short] = text_of(value)[:MAX_ATTRIBUTE_CHARS]
    error = fields.get("error.type")
    if error:
        step.status, step.error_type = "error", text_of(error)[:MAX_NAME_CHARS]
    step.output = step.attributes.get("label") or step.attributes.get("score", "")
