"""What of a step leaves the gateway: contents by the settings of capture, texts without secrets,
user ids as hashes.
"""

from __future__ import annotations

from typing import Final

from stepstream.producers.gateway.mapping import secrets
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.transport.redactor import UNHOOKED, Redactor
from stepstream.producers.values.content import SLACK_CHARS, to_text
from stepstream.producers.values.shortening import shortened
from stepstream.schemas.accept import truncated
from stepstream.schemas.capture import FULL
from stepstream.schemas.step import SHORT_TEXTS, AnyStep, DocumentStruct

_HOOKED: Final = ("input", "output", "error_message", *sorted({*SHORT_TEXTS} - UNHOOKED))


class Privacy:
    """Applies the options to steps. Not to be used by several threads at a time.

    Texts are redacted before they are cut, so that no half of a secret is left. Without ``redact``
    they are cut as the SDK cuts them, whose encoder redacts them then.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._redactor = None if options.hook is None else Redactor(options.hook)

    @property
    def keeps_originals(self) -> bool:
        """Whether a refused item may be kept as it came, without its secrets."""
        options = self._options
        return options.capture.is_full and options.user_ids is None and options.hook is None

    def clean(self, step: AnyStep) -> None:
        """Remove secrets and user ids from a mapped step."""
        if self._options.redact:
            secrets.redact(step)
        if self._options.user_ids is not None:
            self._options.user_ids.replace(step)
        if self._redactor is not None:
            self._apply_hook(step, self._redactor)

    def clean_event(self, step: AnyStep) -> bool:
        """Clean a step that a client has sent as such. Returns whether that changed it."""
        before = step.__copy__()
        step.attributes = dict(step.attributes)
        limit = self._options.capture.limit(step.kind, step.trace_id)
        if limit != FULL:
            self._limit_contents(step, limit)
        self.clean(step)
        return bool(step != before)

    def _limit_contents(self, step: AnyStep, limit: int) -> None:
        step.input, step.input_bytes = self.limited(step.input, step.input_bytes, limit)
        step.output, step.output_bytes = self.limited(step.output, step.output_bytes, limit)
        step.documents = [
            DocumentStruct(
                id=one.id, score=one.score, content=self.limited(one.content, None, limit)[0]
            )
            for one in step.documents
        ]

    def limited(self, text: str, size: int | None, limit: int) -> tuple[str, int | None]:
        """A content within the limit, and its size before; ``size`` is the size if it is known."""
        if not text:
            return "", size
        if not limit:
            return "", size or len(text.encode("utf-8", "replace"))
        # A character has at most 4 bytes, so short texts need no encoding to measure them.
        if len(text) * 4 <= limit:
            return text, size
        if not self._options.redact:
            # The SDK's encoder redacts what is left, and truncates it after that.
            text, whole = to_text(text, limit)
            return text, size or whole
        if len(text) > limit:
            whole = len(text.encode("utf-8", "replace"))
            text = secrets.cleared(text[: limit + SLACK_CHARS])
            return truncated(text, limit)[0], size or whole
        cut, found = truncated(text, limit)
        return cut, size or (found if found > limit else None)

    def shortened(self, text: str, chars: int) -> str:
        """The text in at most this many characters."""
        if len(text) <= chars:
            return text
        if not self._options.redact:
            return shortened(text, chars)
        return secrets.cleared(text[: chars + SLACK_CHARS])[:chars]

    @staticmethod
    def _apply_hook(step: AnyStep, redactor: Redactor) -> None:
        hooked = redactor.hooked
        for field in _HOOKED:
            text = getattr(step, field)
            if text:
                setattr(step, field, hooked(text))
        step.attributes = {hooked(name): hooked(value) for name, value in step.attributes.items()}
        step.documents = [
            DocumentStruct(id=hooked(one.id), score=one.score, content=hooked(one.content))
            for one in step.documents
        ]
