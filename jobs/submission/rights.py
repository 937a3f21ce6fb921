"""What may a job reach that a token was used for? Its prefixes, whether it is submitted now or by a schedule."""

from jobs.settings import Settings
from jobs.storage.base import normalized
from jobs.submission.accept import new_job
from jobs.submission.resolve_model import model_kind
from jobs.submission.validate import Validated, check_locations
from schemas.job import AcceptedJob, JobSpec, RunOf
from schemas.layout import Layout
from schemas.schedule import Rights


def narrowed_to(rights: Rights | None, settings: Settings) -> Settings:
    """Return the settings, narrowed to what the rights allow; None narrows nothing."""
    if rights is None:
        return settings
    narrowed = settings.narrowed(rights.inputs, rights.outputs)
    return narrowed.model_copy(update={"allow_files": settings.allow_files and rights.allow_files})


def check_reach(spec: JobSpec, settings: Settings) -> None:
    """Raise SpecError if the spec, whose URIs are in full, leaves what these settings allow."""
    check_locations(spec, settings)
    # The settings may allow models of their own.
    if model_kind(spec.model, settings.allow_files) != "hub" and "*" in settings.allowed_models:
        settings.check_allowed(normalized(spec.model, "model").rstrip("/") + "/", settings.allowed_inputs, "model")


def job_of_token(checked: Validated, rights: Rights, layout: Layout, run: RunOf | None = None) -> AcceptedJob:
    """Return a new job of a validated spec, confined to what the token allowed. It is written nowhere yet."""
    # `*` of a token is all that the settings allow, and local files only if these do.
    anything = "*" if rights.allow_files else "s3://"
    return new_job(
        checked.spec,
        checked.model,
        accepted_by=f"token {rights.token}",
        allowed_inputs=(anything,) if "*" in rights.inputs else rights.inputs,
        max_priority=rights.max_priority,
        layout=layout,
        run=run,
    )
