"""A union of models that is not closed: which models belong to it is known when a value is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from stepstream.schemas.extensions import Registry


def tag_of(model: type[BaseModel], field: str) -> str | None:
    """The value of a model's literal field, by which a union chooses the model.

    None without such a field.
    """
    found = model.model_fields.get(field)
    if found is None or get_origin(found.annotation) is not Literal:
        return None
    return str(get_args(found.annotation)[0])


class OpenUnion:
    """For ``Annotated[Base, OpenUnion(...)]``.

    A value is an instance, or a mapping with the tag of a model.

    Args:
        field: the discriminator: the models' literal field that selects the model of a mapping.
        registry: where tags are registered; its error names the nearest tag.
        models: the models that are registered now.
    """

    def __init__(
        self,
        field: str,
        registry: Registry[Any],
        models: Callable[[], tuple[type[BaseModel], ...]],
    ) -> None:
        self.field = field
        self.models = models
        self._registry = registry

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(_adapter(self.field, self.models()).core_schema)

    def _validated(self, value: Any) -> Any:
        tag = value.get(self.field) if isinstance(value, dict) else None
        if isinstance(tag, str) and tag not in self._registry:
            raise ValueError(self._registry.unknown(tag))
        return _adapter(self.field, self.models()).validate_python(value)


@lru_cache(maxsize=16)
def _adapter(field: str, models: tuple[type[BaseModel], ...]) -> TypeAdapter[Any]:
    # A discriminated union, not the one model: its errors have the tag in their path, by which the
    # wording of errors finds the model whose fields to suggest.
    if len(models) == 1:
        return TypeAdapter(models[0])
    # Union takes the models as a tuple, for which `X | Y` has no form.
    chosen: Any = Annotated[Union[models], Field(discriminator=field)]  # noqa: UP007
    return TypeAdapter(chosen)
