"""How is a request body read? As JSON, up to a limit. What couldn't be written as JSON again is refused."""

import json
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect

from jobs.api.problems import BadRequest, TooLarge, UnsupportedMedia
from jobs.api.service import Service


async def _body(request: Request) -> Any:
    service: Service = request.app.state.service
    limit = service.settings.max_request_kb << 10
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body is larger than {limit:,} bytes, which max_request_kb allows")
            chunks.append(chunk)
    except ClientDisconnect:
        raise BadRequest("the connection ended before the body did") from None
    if not size:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMedia(f"the body is {kind or 'of no type'}; send application/json")
    return parse(b"".join(chunks))


def parse(data: bytes) -> Any:
    """Parse JSON. Raise BadRequest for anything else, such as NaN, endless numbers or nesting, half characters."""
    try:
        found = json.loads(data, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


#: The body as JSON; None if it is empty.
Body = Annotated[Any, Depends(_body)]


def optional_text(name: str, **says: Any) -> dict[str, Any]:
    """Return what OpenAPI says of a body that may be left out, or name one text. `says` is more of its schema."""
    schema = {
        "type": ["object", "null"],
        "properties": {name: {"type": "string", **says}},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


def key_header(says: str) -> Any:
    """Return the header of an idempotency key, with what it is for."""
    return Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description=says)
