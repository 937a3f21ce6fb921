"""How do other libraries get at S3? With what boto3 found: credentials, region and endpoint."""

from dataclasses import dataclass, field

from schemas.errors import AccessDenied


@dataclass(frozen=True)
class S3Access:
    """Credentials as they are now: some expire. `endpoint` is None for AWS's own."""

    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(repr=False)
    region: str
    endpoint: str | None


def s3_access() -> S3Access:
    """Return this process's access to S3, by AWS's own chain. Raise AccessDenied if there are no credentials."""
    import boto3

    session = boto3.Session()
    found = session.get_credentials()
    if found is None:
        raise AccessDenied("no AWS credentials were found; set AWS_ACCESS_KEY_ID or a profile")
    frozen = found.get_frozen_credentials()
    client = session.client("s3").meta
    endpoint = str(client.endpoint_url)
    is_aws = ".amazonaws.com" in endpoint
    region = client.region_name if client.region_name != "aws-global" else None
    return S3Access(
        key_id=str(frozen.access_key),
        secret=str(frozen.secret_key),
        token=frozen.token,
        region=region or "us-east-1",
        endpoint=None if is_aws else endpoint,
    )
