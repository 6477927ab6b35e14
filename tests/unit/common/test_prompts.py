"""Prompts: variables are data, and nothing of a template reaches the program."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from stepstream.common.prompts import PromptSet, prompt_set
from stepstream.schemas.release import PromptError


def rendered(template: str, **variables: Any) -> str:
    """The text of one template."""
    return PromptSet({"p": template}).render("p", variables)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7 * 7 }}",
        "{% for x in range(9) %}x{% endfor %}",
        "{# comment #}",
        "{% include 'tone' %}",
        "{{ self.__class__ }}",
        "<b>&amp;</b>",
        "${7*7} #{7*7} %(x)s {0}",
    ],
)
def test_template_syntax_in_a_variable_is_text(text: str) -> None:
    """Also inside lists and mappings, in an include, a loop, a filter and a comparison."""
    prompts = PromptSet(
        {
            "p": "{{ q }}|{% for x in items %}{{ x.q }}{% endfor %}|{{ q ~ '' }}"
            "{% include 'tone' %}",
            "tone": "|{{ q | trim }}",
        }
    )
    variables = {"q": text, "items": [{"q": text}]}
    assert prompts.render("p", variables) == f"{text}|{text}|{text}|{text}"


class Account:
    """An object of the program."""

    password = "secret"

    def drop(self) -> str:
        raise AssertionError("called")


@pytest.mark.parametrize(
    "template",
    [
        "{{ q.__class__ }}",
        "{{ q['__class__'] }}",
        "{{ q | attr('__class__') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ q.upper() }}",
        "{{ '{0.__class__}'.format(q) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum() }}",
        "{{ range.__self__ }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 9 ** 99999999 }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ missing }}",
        "{{ q.missing }}",
        "{% set q.x = 1 %}",
    ],
)
def test_what_leads_out_of_the_sandbox_is_refused(template: str) -> None:
    """With an error that names the prompt, and nothing else happens."""
    with pytest.raises(PromptError, match="prompt 'p'"):
        rendered(template, q="abc")


def test_objects_of_the_program_are_no_variables() -> None:
    """Texts, numbers, lists and mappings are; dates and amounts become texts."""
    with pytest.raises(PromptError, match="not Account"):
        rendered("{{ q.password }}", q={"deep": [Account()]})
    with pytest.raises(PromptError, match="keys of a variable"):
        rendered("x", q={(1, 2): 3})
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(PromptError, match="nested"):
        rendered("x", q=nested)
    shown = rendered("{{ day }} {{ amount }}", day=date(2026, 11, 30), amount=Decimal("1.50"))
    assert shown == "2026-11-30 1.50"


def test_the_length_of_a_prompt_is_bounded() -> None:
    """A loop over a large list ends at the limit."""
    with pytest.raises(PromptError, match="longer than"):
        rendered("{% for x in items %}{{ text }}{% endfor %}", items=[0] * 5_000, text="x" * 1_000)


def test_the_plain_part_of_the_language_works() -> None:
    """Loops, conditions, includes, macros and filters."""
    template = (
        "{% macro item(o) %}[{{ o.id }}]{% endmacro %}"
        "{% for o in orders if o.open %}{{ item(o) }}{{ loop.index }}{% endfor %}"
        "{{ name | upper }}{% if count > 1 %} many{% endif %} {{ 2 * count }}"
    )
    orders = [{"id": 1, "open": True}, {"id": 2, "open": False}]
    assert rendered(template, orders=orders, name="ann", count=3) == "[1]1ANN many 6"


def test_the_same_texts_are_compiled_once() -> None:
    """A prompt costs its rendering only."""
    assert prompt_set({"p": "x"}) is prompt_set({"p": "x"})
