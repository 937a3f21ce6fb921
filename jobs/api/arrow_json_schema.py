"""The JSON Schema of an Arrow type, as results are written in JSON: nulls anywhere, bytes in hexadecimal."""

from typing import Any

import pyarrow as pa


def json_schema(arrow: pa.DataType) -> dict[str, Any]:
    """Return the schema, with each field's description, unit and range. A type that JSON doesn't know is a string."""
    if pa.types.is_struct(arrow):
        fields = [arrow.field(index) for index in range(arrow.num_fields)]
        return {
            "type": ["object", "null"],
            "properties": {field.name: _of_field(field) for field in fields},
            "required": [field.name for field in fields],
        }
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return {"type": ["array", "null"], "items": json_schema(arrow.value_type)}
    if pa.types.is_dictionary(arrow):
        return json_schema(arrow.value_type)
    if pa.types.is_boolean(arrow):
        return {"type": ["boolean", "null"]}
    if pa.types.is_integer(arrow):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(arrow):
        return {"type": ["number", "null"]}
    return {"type": ["string", "null"]}


def _of_field(field: pa.Field) -> dict[str, Any]:
    notes = {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
    words = [notes.get("description", "")]
    words += [f"In {notes['unit']}."] if notes.get("unit") else []
    words += [f"Range: {notes['range']}."] if notes.get("range") else []
    found = json_schema(field.type)
    text = " ".join(word for word in words if word)
    return found | ({"description": text} if text else {})
