"""Plain frozen records of what was read, of which each value is of its type."""

from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tlbench.db.connection import damaged_value

Record = TypeVar("Record")


def record(kind: type[Record], **values: Any) -> Record:
    """A dataclass or named tuple of these values; one of another type is damage."""
    try:
        # mypy takes the __hash__ of the instances for that of their class.
        _types_of(kind).model_validate(values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise damaged_value(error.errors()[0]["input"]) from error
    return kind(**values)


@cache
def _types_of(kind: type[Record]) -> type[BaseModel]:
    """The fields of a record, each to be of its type and of no other."""
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    types: Any = {name: (hint, ...) for name, hint in get_type_hints(kind).items()}
    return create_model(kind.__name__, __config__=config, **types)
