"""Help that wraps where the terminal does: tyro keeps the line breaks that an option's text has in the source."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

import docstring_parser
import tyro


@cache
def unwrap_help(options: type) -> None:
    """Gives every option of a dataclass, and of those inside it, its documentation as one paragraph."""
    hints = get_type_hints(options, include_extras=True)
    told = {part.arg_name: part.description for part in docstring_parser.parse_from_object(options).params}
    for field in dataclasses.fields(options):
        inner = _bare(hints[field.name])
        if dataclasses.is_dataclass(inner):
            unwrap_help(inner)
        elif text := told.get(field.name):
            options.__annotations__[field.name] = Annotated[
                hints[field.name], tyro.conf.arg(help=" ".join(inspect.cleandoc(text).split()))
            ]


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
