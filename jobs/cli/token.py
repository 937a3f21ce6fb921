"""`token`: who may use the API, and for what. Works on the tokens file alone; every server that reads it follows."""

import json
from datetime import UTC, datetime, timedelta

import click

from jobs.api.tokens import Scope, Token, Tokens
from jobs.cli.duration import Duration
from jobs.cli.run_job import json_option, quiet_settings
from jobs.settings import Settings
from jobs.webhooks.signing import signing_key
from schemas.job import HIGHEST_PRIORITY, NORMAL_PRIORITY


@click.group()
def token() -> None:
    """Make, list and revoke the API's tokens. NIGHTSHIFT_TOKENS_FILE names their file, which holds hashes alone."""


@token.command()
@click.option("--tenant", required=True, help="Whose jobs these are: a name in small letters.")
@click.option("--inputs", multiple=True, metavar="PREFIX/", help="Where jobs may read; may be given again; `*` is all.")
@click.option("--outputs", multiple=True, metavar="PREFIX/", help="Where jobs may write; may be given again.")
@click.option(
    "--scopes",
    default="submit,read",
    show_default=True,
    help="Of submit, read and admin, which does both for every tenant.",
)
@click.option(
    "--max-running-jobs", type=click.IntRange(min=1), help="Jobs of the tenant that may be under way at once."
)
@click.option("--requests-per-s", type=click.FloatRange(min=0, min_open=True), help="Instead of the server's limit.")
@click.option(
    "--max-priority",
    type=click.IntRange(NORMAL_PRIORITY, HIGHEST_PRIORITY),
    help=f"Up to which priority its jobs go before other tenants'; {NORMAL_PRIORITY} if left out: fair shares.",
)
@click.option(
    "--expires", type=Duration("90d"), metavar="90d", help="When it stops working: 12h, 90d, 4w; never if left out."
)
@json_option
def new(
    tenant: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    scopes: str,
    max_running_jobs: int | None,
    requests_per_s: float | None,
    max_priority: int | None,
    expires: timedelta | None,
    as_json: bool,
) -> None:
    """Make a token and print it, this once: it is kept nowhere.

    \b
    nightshift token new --tenant search --inputs s3://raw/search/ --outputs s3://annotated/search/ \\
      --max-running-jobs 5 --expires 90d
    """
    settings = quiet_settings()
    tokens = Tokens(settings.tokens_path)
    id, secret = tokens.new(
        tenant, _scopes(scopes), inputs, outputs, max_running_jobs, requests_per_s, expires, max_priority
    )
    key = notify_key(settings, tenant)
    if as_json:
        click.echo(json.dumps({"id": id, "token": secret, "tenant": tenant, "notify_key": key}))
        return
    click.echo(secret)
    click.echo(f"token {id} of tenant {tenant}, in {tokens.file}; it can't be shown again", err=True)
    if key is not None:
        click.echo(f"the tenant's webhooks are signed with {key}", err=True)


@token.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """All tokens, what each allows, and whether it works."""
    settings = quiet_settings()
    tokens = Tokens(settings.tokens_path)
    for found in tokens.list():
        if as_json:
            click.echo(json.dumps(found.model_dump(mode="json", exclude={"hash"}) | {"standing": _standing(found)}))
        else:
            click.echo(_line(found))
    if not as_json and not tokens.list():
        click.echo(f"there is no token in {tokens.file}", err=True)


@token.command()
@click.argument("id")
def revoke(id: str) -> None:
    """End a token, by its id: servers refuse it from their next request on.

    \b
    nightshift token revoke 3f9a1c0b2d4e
    """
    settings = quiet_settings()
    revoked = Tokens(settings.tokens_path).revoke(id)
    click.echo(f"token {revoked.id} of tenant {revoked.tenant} works no more")


def notify_key(settings: Settings, tenant: str) -> str | None:
    """Return the key that the tenant's webhooks are signed with; None if none are sent."""
    secret = settings.notify_secret
    return None if secret is None else signing_key(secret.get_secret_value(), tenant)


def _scopes(text: str) -> list[Scope]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in list(Scope)]
    if unknown:
        raise click.BadParameter(f"there is no scope {unknown[0]!r}; scopes: {', '.join(Scope)}", param_hint="--scopes")
    return [Scope(name) for name in names]


def _standing(token: Token) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "works" if token.works(datetime.now(UTC)) else "expired"


def _line(token: Token) -> str:
    words = [token.id, _standing(token), token.tenant, ",".join(token.scopes)]
    words += [f"inputs={','.join(token.inputs) or 'none'}", f"outputs={','.join(token.outputs) or 'none'}"]
    words += [f"max_running_jobs={token.max_running_jobs}"] if token.max_running_jobs else []
    words += [f"requests_per_s={token.requests_per_s:g}"] if token.requests_per_s else []
    words += [f"max_priority={token.max_priority}"] if token.max_priority else []
    words += [f"expires={token.expires_at:%Y-%m-%d}"] if token.expires_at else []
    return "  ".join(words)
