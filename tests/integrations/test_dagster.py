"""A real materialisation in Dagster's own environment, of the asset that the component makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import read_output
from tests.integrations.conftest import clean_environment, environment_of, said_by

pytestmark = pytest.mark.slow

DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__))
"""
#: Materialises a day's partition as `dagster asset materialize` does, and says what the asset's metadata are.
MATERIALISE = """
import json, sys
import dagster as dg
from project.definitions import defs

with dg.DagsterInstance.ephemeral() as instance:
    result = defs().get_implicit_global_asset_job_def().execute_in_process(partition_key=sys.argv[1], instance=instance)
    (made,) = result.asset_materializations_for_node("annotated__reviews")
    print(json.dumps({name: one.value for name, one in made.metadata.items()}))
"""


def test_an_asset_is_materialised(url: str, spec: dict[str, Any], tmp_path: Path) -> None:
    project = tmp_path / "project"
    place = project / "src" / "project"
    (place / "defs" / "reviews").mkdir(parents=True)
    (place / "__init__.py").touch()
    (place / "definitions.py").write_text(DEFINITIONS)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "project"\nversion = "1"\n[tool.dg]\ndirectory_type = "project"\n'
        '[tool.dg.project]\nroot_module = "project"\n'
    )
    component = {
        "type": "nightshift.integrations.dagster.NightshiftJob",
        "attributes": {
            "asset": "annotated/reviews",
            "url": url,
            "daily_from": "2026-11-01",
            "poll_s": 0.5,
            "spec": json.loads(json.dumps(spec).replace("DAY", "{partition}")),
        },
    }
    (place / "defs" / "reviews" / "defs.yaml").write_text(json.dumps(component))  # JSON is YAML
    env = clean_environment(environment_of("dagster"))
    env |= {"PYTHONPATH": str(project / "src"), "DAGSTER_HOME": str(tmp_path)}
    said = said_by(["python", "-c", MATERIALISE, "2026-11-20"], env, project)
    metadata = json.loads(said.splitlines()[-1])
    assert (metadata["status"], metadata["records"], metadata["dagster/row_count"]) == ("succeeded", 200, 200)
    assert len(read_output(f"{tmp_path}/out/2026-11-20")) == 200
