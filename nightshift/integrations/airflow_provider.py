"""What does Airflow want to know of a provider? It asks while it is being imported, so this imports nothing of it."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's name, and the type of its connections."""
    return {
        "package-name": "nightshift-inference",
        "name": "Nightshift",
        "description": "Batch inference for data in S3 and models on the Hugging Face hub",
        "connection-types": [
            {
                "connection-type": "nightshift",
                "hook-class-name": "nightshift.integrations.airflow.NightshiftHook",
            }
        ],
    }
