"""Prompt templates: Jinja2 in its sandbox, with the plain part of its language.

A template comes from the agent's repository, its variables from users and tools. Variables are
plain data and only ever values: template syntax in them is text and is not evaluated, and no method
of theirs is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from jinja2 import DictLoader, StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stepstream.schemas.release import PromptError
from stepstream.schemas.suggestions import did_you_mean

MAX_OUTPUT_CHARS: Final = 4_000_000
"""Characters that a prompt may have. Models take less; a loop in a template could write more."""
MAX_DEPTH: Final = 32
"""Lists and mappings inside one another that a variable may have."""
# `random` would give another prompt for the same variables; the others pad or format to a size that
# a variable could choose.
_NO_FILTERS: Final = frozenset({"random", "center", "format", "pprint", "urlize", "xmlattr"})


_INCLUDING: Final = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)


class TemplateFault(NamedTuple):
    """What is wrong with a template, and its line; 0 where no line is to blame."""

    prompt: str
    line: int
    reason: str
    unknown: str = ""
    """The variable that the prompt does not declare, where that is the fault."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which values have items, but no methods.

    Jinja2's own sandbox allows methods such as ``str.format``, which has led out of it before.
    """

    # Repeated texts and powers could take all memory for one short variable.
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not (_is_number(left) and _is_number(right)):
            raise SecurityError(f"{operator} is only for numbers, and ** is not available")
        return super().call_binop(context, operator, left, right)

    def is_safe_callable(self, obj: Any) -> bool:
        return isinstance(obj, Macro) or obj is self.globals["range"]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not callable(value) and super().is_safe_attribute(obj, attr, value)


def _environment(templates: Mapping[str, str]) -> _Sandbox:
    # No autoescape: a prompt is text, and "&amp;" in it would change what the model reads.
    made = _Sandbox(
        loader=DictLoader(templates),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals = {"range": made.globals["range"]}
    for name in _NO_FILTERS:
        del made.filters[name]
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of a variable as plain data. Raises ``PromptError`` for an object of the program."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if depth >= MAX_DEPTH:
        raise PromptError(f"a variable is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, str):  # an enumeration's member, or text marked as safe markup
        return str.__str__(value)
    if isinstance(value, date | Decimal | UUID):
        return str(value)
    raise PromptError(
        f"variables are texts, numbers, lists and mappings, not {type(value).__name__}: "
        "convert it first"
    )


def _key(key: Any) -> str | int:
    if type(key) in (str, int):
        return key  # type: ignore[no-any-return]
    raise PromptError(f"keys of a variable are texts, not {type(key).__name__}")


class PromptSet:
    """The compiled prompts of a release; any of them may include another one by its name."""

    def __init__(self, templates: Mapping[str, str]) -> None:
        self._environment = _environment(templates)
        self._templates = dict(templates)

    def render(self, name: str, variables: Mapping[str, Any]) -> str:
        """The text of a prompt. Raises ``PromptError``."""
        try:
            pieces, length = [], 0
            data = {key: plain(value) for key, value in variables.items()}
            for piece in self._environment.get_template(name).generate(data):
                length += len(piece)
                if length > MAX_OUTPUT_CHARS:
                    raise PromptError(
                        f"prompt {name!r} is longer than {MAX_OUTPUT_CHARS:,} characters"
                    )
                pieces.append(piece)
            return "".join(pieces)
        except SecurityError as error:
            raise PromptError(f"prompt {name!r} does something forbidden: {error}") from None
        except TemplateError as error:
            raise PromptError(f"prompt {name!r} cannot be rendered: {error}") from None
        except PromptError:
            raise
        # What an expression in a template can raise: 1 // 0, a range of 10**9, a missing argument.
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise PromptError(
                f"prompt {name!r} cannot be rendered: {type(error).__name__}: {error}"
            ) from None

    def faults(self, variables: Mapping[str, frozenset[str]]) -> list[TemplateFault]:
        """What is wrong with the templates, given the variables that each of them declares."""
        trees: dict[str, nodes.Template] = {}
        found: list[TemplateFault] = []
        for name, text in self._templates.items():
            try:
                trees[name] = self._environment.parse(text, name)
                # Unknown filters and tests are found when the tree is compiled.
                self._environment.compile(trees[name], name)
            except TemplateSyntaxError as error:
                found.append(TemplateFault(name, error.lineno, error.message or "syntax error"))
                trees.pop(name, None)
        for name in trees:
            found += self._include_faults(name, trees)
            found += _variable_faults(name, trees, variables.get(name, frozenset()))
        return found

    def _include_faults(
        self, name: str, trees: Mapping[str, nodes.Template]
    ) -> list[TemplateFault]:
        found = []
        for node in trees[name].find_all(_INCLUDING):
            target: Any = node.template  # type: ignore[attr-defined]
            if not isinstance(target, nodes.Const) or not isinstance(target.value, str):
                # What is included could not be checked for its variables.
                reason = "names of included prompts are written in quotes, not computed"
            elif target.value not in self._templates:
                hint = did_you_mean(target.value, self._templates)
                reason = f"there is no prompt {target.value!r} to include; {hint}"
            elif name in _included(target.value, trees, set()):
                reason = f"it includes itself by way of {target.value!r}"
            else:
                continue
            found.append(TemplateFault(name, node.lineno, reason))
        return found


def _variable_faults(
    name: str, trees: Mapping[str, nodes.Template], declared: frozenset[str]
) -> list[TemplateFault]:
    used = _used(name, trees)
    found = [
        TemplateFault(
            name,
            _line_of(trees[name], variable),
            f"{variable} is not a variable of this prompt",
            variable,
        )
        for variable in sorted(used - declared)
    ]
    found += [
        TemplateFault(name, 0, f"the variable {variable} is declared and not used")
        for variable in sorted(declared - used)
    ]
    return found


def _included(name: str, trees: Mapping[str, nodes.Template], seen: set[str]) -> set[str]:
    """The prompt and every prompt that it includes, directly or not."""
    if name not in seen and name in trees:
        seen.add(name)
        for included in meta.find_referenced_templates(trees[name]):
            _included(included or "", trees, seen)
    return seen


def _used(name: str, trees: Mapping[str, nodes.Template]) -> set[str]:
    """The variables of a prompt and of what it includes."""
    parts = _included(name, trees, set())
    used = {one for part in parts for one in meta.find_undeclared_variables(trees[part])}
    # `range` is the one name that is there without being a variable.
    return used - {"range"}


def _line_of(tree: nodes.Template, variable: str) -> int:
    """The first line that uses the variable; 0 where an included prompt does."""
    return next((node.lineno for node in tree.find_all(nodes.Name) if node.name == variable), 0)


@lru_cache(maxsize=32)
def _compiled(templates: tuple[tuple[str, str], ...]) -> PromptSet:
    return PromptSet(dict(templates))


def prompt_set(templates: Mapping[str, str]) -> PromptSet:
    """The compiled prompts; the same object for the same texts."""
    return _compiled(tuple(sorted(templates.items())))
