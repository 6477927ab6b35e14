"""msgspec structs derived from the public pydantic models: one source for both.

Decoding with msgspec costs a fifth of validating with pydantic, so hot paths use the structs. They
have the same fields, types and defaults; a property test compares their decisions.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def derive_struct(
    model: type[BaseModel],
    *,
    name: str = "",
    fields: frozenset[str] | None = None,
    nested: dict[type, type] | None = None,
    narrowed: Mapping[str, Any] | None = None,
    tag_field: str = "",
) -> Any:
    """A keyword-only msgspec Struct with the model's fields (or only ``fields``), in its order.

    ``nested`` maps inner models to their structs; ``narrowed`` replaces the types of fields.
    ``tag_field`` names a literal field by which a union chooses the struct: it becomes the struct's
    tag, is no field of it, and is always encoded.
    Defaults are omitted in encoding. ``gc=False``: decoded data has no cycles, so the garbage
    collector need not track it.
    """
    required: list[Any] = []
    for field_name, info in model.model_fields.items():
        if (fields is not None and field_name not in fields) or field_name == tag_field:
            continue
        annotation = _plain(info.annotation, nested or {})
        bounds = _bounds(info.metadata)
        if narrowed and field_name in narrowed:
            annotation = narrowed[field_name]
        elif bounds:
            annotation = Annotated[annotation, msgspec.Meta(**bounds)]
        if info.is_required():
            required.append((field_name, annotation))
        elif info.default_factory is not None:
            # The default of a nested model is its struct.
            factory: Any = (nested or {}).get(info.default_factory, info.default_factory)  # type: ignore[call-overload]
            required.append((field_name, annotation, msgspec.field(default_factory=factory)))
        else:
            default = None if info.default is PydanticUndefined else info.default
            required.append((field_name, annotation, default))
    return msgspec.defstruct(
        name or f"{model.__name__}Struct",
        required,
        kw_only=True,
        omit_defaults=True,
        gc=False,
        module=model.__module__,
        tag_field=tag_field or None,
        tag=get_args(model.model_fields[tag_field].annotation)[0] if tag_field else None,
    )


def _plain(annotation: Any, nested: dict[type, type]) -> Any:
    """The annotation with structs instead of models, and of pydantic's metadata only the bounds."""
    if annotation in nested:
        return nested[annotation]
    # A JSON number is a double in every reader; exact amounts are strings.
    if annotation is Decimal:
        return Decimal | float
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        bounds = _bounds(metadata)
        plain = _plain(base, nested)
        return Annotated[plain, msgspec.Meta(**bounds)] if bounds else plain
    if origin in (Union, types.UnionType):
        # The arms are in a tuple, for which `X | Y` has no form.
        return Union[tuple(_plain(a, nested) for a in get_args(annotation))]  # noqa: UP007
    if origin in (list, dict, tuple):
        return origin[tuple(_plain(a, nested) for a in get_args(annotation))]
    return annotation


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for item in metadata:
        for sub in getattr(item, "metadata", [item]):
            for key in ("ge", "le", "gt", "lt", "min_length", "max_length"):
                if getattr(sub, key, None) is not None:
                    bounds[key] = getattr(sub, key)
    return bounds
