"""How are errors answered? By problem documents (RFC 9457), with the fields at fault."""

import logging
import math
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from jobs.logs import event
from jobs.schedules.manage import ScheduleConflict
from schemas.errors import (
    AccessDenied,
    Forbidden,
    NightshiftError,
    NotFinished,
    NotFound,
    Permanent,
    ServiceUnavailable,
    SpecError,
    TooManyRequests,
    Transient,
    Unauthenticated,
)
from schemas.redaction import masked

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: Seconds after which to ask again if Redis or a store is away.
RETRY_AFTER_S = 5
#: A message quotes what was sent, and that may be long.
_LONGEST = 1000


class FieldProblem(BaseModel):
    field: str = Field(description="The dotted path of the field, query parameter or header.")
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is stable; `errors` names each field at fault."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem] = []


class Conflict(NightshiftError):
    """The job is not in a state that allows what was asked for."""

    code = "conflict"


class BadRequest(NightshiftError):
    """What was sent can't be read at all."""

    code = "bad_request"


class TooLarge(NightshiftError):
    code = "too_large"


class UnsupportedMedia(NightshiftError):
    code = "unsupported_media_type"


class NotAcceptable(NightshiftError):
    code = "not_acceptable"


#: The first class that an error is of decides.
_STATUS: tuple[tuple[type[NightshiftError], int], ...] = (
    (SpecError, 422),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (NotAcceptable, 406),
    (NotFinished, 409),
    (Conflict, 409),
    (ScheduleConflict, 409),
    (TooLarge, 413),
    (UnsupportedMedia, 415),
    (BadRequest, 400),
    (TooManyRequests, 429),
    (AccessDenied, 502),
    (Permanent, 502),
    (ServiceUnavailable, 503),
    (Transient, 503),
)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems that a route may answer, for the OpenAPI document, with those of every route."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, 403, 429, 502, 503, *statuses})
    }


def install(app: FastAPI) -> None:
    """Make every error of this application a problem document."""
    app.add_exception_handler(NightshiftError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unexpected)


def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NightshiftError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    elif status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status >= 500:
        event(_log, "request_failed", logging.WARNING, path=request.url.path, code=error.code, error=error.message)
    problems = error.problems if isinstance(error, SpecError) else []
    fields = [FieldProblem(field=p.field, message=_short(p.message)) for p in problems]
    return _document(request, status, error.code, error.message, fields, headers)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [
        FieldProblem(field=".".join(str(part) for part in item["loc"][1:]), message=item["msg"])
        for item in jsonable_encoder(error.errors(), exclude={"input", "ctx"})
    ]
    detail = "; ".join(f"{one.field}: {one.message}" for one in fields)
    return _document(request, 422, "invalid_request", detail, fields)


def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return _document(request, error.status_code, code, str(error.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of every route that the path fits best. The framework names those of one route only."""
    document: dict[str, Any] = request.app.openapi()
    fitting = [path for path in document["paths"] if _fits(path, request.url.path)]
    best = max(fitting, key=len, default=None)
    return sorted(method.upper() for method in document["paths"].get(best, ("get",)))


def _fits(template: str, path: str) -> bool:
    literal = [re.escape(part) for part in re.split(r"{\w+}", template)]
    return re.fullmatch("[^/]+".join(literal), path) is not None


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer a defect of the server. The log says what it is, the answer doesn't."""
    return _document(request, 500, "internal_error", "the server failed; its log says why")


def _document(
    request: Request,
    status: int,
    code: str,
    detail: str,
    fields: list[FieldProblem] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    document = ProblemDocument(
        type=f"urn:nightshift:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_short(detail),
        instance=masked(request.url.path),
        code=code,
        errors=fields or [],
    )
    return JSONResponse(document.model_dump(), status, headers, media_type=MEDIA_TYPE)


def _short(text: str) -> str:
    """Return the text, shortened if it is long, as valid UTF-8."""
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return text.encode(errors="replace").decode()
