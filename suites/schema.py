"""What all records of a suite share: the base class, and how a wrong value is told."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

# Bounds far beyond any published model: they catch slips of the keyboard.
Size = Annotated[int, Field(gt=0, le=65_536)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]


def _count_or_max(value: Any, count: ValidatorFunctionWrapHandler) -> Any:
    if value == "max":
        return value
    if isinstance(value, str):
        raise PydanticCustomError("count_or_max", "neither a whole number nor max")
    return count(value)


def _schema_of_count_or_max(
    _: object, handler: GetCoreSchemaHandler
) -> core_schema.CoreSchema:
    """One schema, not a union: pydantic would tell what is wrong with each member."""
    return core_schema.no_info_wrap_validator_function(
        _count_or_max,
        handler(Count),
        serialization=core_schema.plain_serializer_function_ser_schema(lambda v: v),
    )


CountOrMax = Annotated[int | Literal["max"], GetPydanticSchema(_schema_of_count_or_max)]


def _is_label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(
            f"{text!r} is not a name: it has blanks at an end,"
            " or characters that cannot be printed"
        )
    return text


Label = Annotated[str, Field(min_length=1), AfterValidator(_is_label)]


class Spec(BaseModel):
    """Base of every record here: frozen, closed, strictly typed, every number finite.

    A validator's message names the fields that clash as `field=value`, nested ones
    with their dots: the loader finds their lines by it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


# How a value is wrong, by pydantic's kind of error; the context fills the braces.
_WORDING = {
    "bool_type": "is not true or false",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "string_type": "is not a text",
    "string_unicode": "holds characters that no text can",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length} characters",
    "dict_type": "is not a mapping",
    # The one field of a list; a list of its own would be an axis.
    "tuple_type": "cannot stand there; grid_pool: pool2@3,6 would be right",
    "model_type": "is not a mapping",
    "count_or_max": "is neither a whole number nor max",
    "greater_than": "is not greater than {gt:.12g}",
    "greater_than_equal": "is not at least {ge:.12g}",
    "less_than": "is not less than {lt:.12g}",
    "less_than_equal": "is not at most {le:.12g}",
}


def wording(error: ErrorDetails, schema: type[Spec]) -> str:
    """How a value is wrong, in words that follow the value itself."""
    kind = error["type"]
    if kind == "literal_error":
        return f"is not one of {', '.join(choices(schema, error['loc']))}"
    if kind in _WORDING:
        return _WORDING[kind].format_map(error.get("ctx", {}))
    return f"is not right: {error['msg']}"


def choices(schema: type[Spec], path: tuple[int | str, ...]) -> list[str]:
    """The values open to the field at `path`; none where it is not a choice."""
    field = schema_at(schema, path[:-1]).model_fields[str(path[-1])]
    return [str(choice) for choice in get_args(field.annotation)]


def schema_at(schema: type[Spec], path: tuple[int | str, ...]) -> type[Spec]:
    """The record that stands at `path` inside `schema`."""
    for key in path:
        annotation = schema.model_fields[str(key)].annotation
        kinds = (annotation, *get_args(annotation))  # X, or X | None
        schema = next(
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Spec)
        )
    return schema
