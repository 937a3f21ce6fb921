"""Who asks, and may they? What each route depends on, by the scope that it needs."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from jobs.api.auth import LOCAL, Principal, is_loopback
from jobs.api.service import Service
from jobs.api.tokens import Scope
from schemas.errors import Forbidden, SpecError


@dataclass(frozen=True)
class Asked:
    """A request: the principal who asks, and the service that answers."""

    who: Principal
    service: Service


_BEARER = HTTPBearer(auto_error=False, description="A token, as `nightshift token new` prints it.")


async def _asked(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Asked:
    service: Service = request.app.state.service
    peer = request.client.host if request.client else ""
    who = service.authenticator.authenticate(request.headers.get("authorization"), peer)
    if who is LOCAL:
        _refuse_other_sites(request)
    _refuse_unknown_parameters(request)
    return Asked(who, service)


def _refuse_unknown_parameters(request: Request) -> None:
    """Raise SpecError for a query parameter that the route doesn't have: a misspelt `limit` would go unnoticed."""
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known parameters: {', '.join(known) or 'none'}"
            raise SpecError.of(name, f"unknown parameter; {hint}")


def _refuse_other_sites(request: Request) -> None:
    """Raise Forbidden for a web page of another site, which would ask in the name of this machine's user."""
    origin = request.headers.get("origin")
    names = [urlsplit(f"//{request.headers.get('host', '')}").hostname]
    names += [urlsplit(origin).hostname] if origin is not None else []
    if not all(name is not None and is_loopback(name) for name in names):
        raise Forbidden("without a token only this machine itself may ask, by the name localhost or 127.0.0.1")


async def _reading(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.READ)
    return asked


async def _submitting(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.SUBMIT)
    return asked


async def _overseeing(asked: Annotated[Asked, Depends(_asked)]) -> Asked:
    asked.who.require(Scope.ADMIN)
    return asked


Reading = Annotated[Asked, Depends(_reading)]
Submitting = Annotated[Asked, Depends(_submitting)]
Overseeing = Annotated[Asked, Depends(_overseeing)]
