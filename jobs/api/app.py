"""What is the API's application made of? Its routes, its errors, and its OpenAPI document."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from jobs.api import events, jobs, listing, metrics, problems, results, schedules, submit, tasks, workers
from jobs.api.access_log import AccessLog
from jobs.api.problems import ProblemDocument
from jobs.api.service import Service
from schemas import __version__
from schemas.job import JobSpec
from schemas.schedule import Schedule
from schemas.tasks import all_tasks

_REF = "#/components/schemas/{model}"


def make_app(service: Service) -> FastAPI:
    """Return the API of a deployment."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loop = asyncio.get_running_loop()
        yield

    app = FastAPI(
        title="Nightshift",
        version=__version__,
        description="Batch inference: submit jobs, follow them, read their results.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        generate_unique_id_function=lambda route: route.name.rstrip("_"),
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = metrics.Metrics()
    app.state.shutdown = asyncio.Event()
    problems.install(app)
    for module in (submit, listing, results, events, jobs, schedules, tasks, workers, metrics):
        app.include_router(module.router)
    app.add_middleware(AccessLog, metrics=app.state.metrics)
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with what is sent and the problems as components, and no other errors."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (JobSpec, Schedule, ProblemDocument):
        schema = model.model_json_schema(ref_template=_REF)
        components |= schema.pop("$defs", {})
        components[model.__name__] = schema
    tasks = all_tasks().values()
    components["JobSpec"]["properties"]["task"]["enum"] = [name for t in tasks for name in (t.id, *t.aliases)]
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    document["components"]["schemas"] = dict(sorted(components.items()))
    for operations in document["paths"].values():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            named = body.get("schema", {}).get("$ref")
            if named in ("JobSpec", "Schedule"):
                body["schema"] = {"$ref": _REF.format(model=named)}
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")) or "security" in operation:
                answers["422"] = problems.answers(422)[422]
            # FastAPI describes events by this too, which OpenAPI 3.1 doesn't know: `schema` describes them.
            answers.get("200", {}).get("content", {}).get("text/event-stream", {}).pop("itemSchema", None)
    return document
