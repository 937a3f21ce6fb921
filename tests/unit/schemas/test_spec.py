"""The job spec: what is accepted, what is refused, and in what words."""

from typing import Any

import pytest

from schemas.errors import SpecError
from schemas.job import JobSpec, parse_spec, spec_json_schema


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "task": "text-classification",
        "model": "org/model",
        "input": {"uri": "s3://raw/reviews/"},
        "output": {"uri": "s3://annotated/reviews/"},
    } | changes


def problems(data: object) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(data)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_the_smallest_spec_has_all_defaults() -> None:
    parsed = parse_spec(spec())
    assert parsed.params == {"top_k": 1, "function_to_apply": None, "max_length": None}
    assert (parsed.dtype, parsed.batch_size, parsed.priority, parsed.seed) == ("auto", "auto", 5, 0)
    assert parse_spec(parsed.model_dump(mode="json")) == parsed


def test_an_alias_is_written_as_the_task() -> None:
    assert parse_spec(spec(task="sentiment-analysis")).task == "text-classification"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"modle": "x"}, "modle", "did you mean 'model'"),
        ({"input": {"uri": "x", "colums": {}}}, "input.colums", "did you mean 'columns'"),
        ({"params": {"topk": 2}}, "params.topk", "did you mean 'top_k'"),
        ({"params": {"zzzzzz": 2}}, "params.zzzzzz", "known keys: top_k"),
        ({"task": "text-clasification"}, "task", "did you mean 'text-classification'"),
        ({"task": "embed"}, "task", "did you mean 'embeddings'"),
        ({"task": "nope"}, "task", "unknown task 'nope'; known tasks: "),
        ({"task": "zzz"}, "task", "known tasks"),
        ({"params": {"top_k": 0}}, "params.top_k", "greater than or equal to 1, not 0"),
        ({"params": {"top_k": "many"}}, "params.top_k", "not 'many'"),
        ({"params": {"function_to_apply": "tanh"}}, "params.function_to_apply", "'softmax', 'sigmoid' or 'none'"),
        ({"input": {"uri": "x", "columns": {"txt": "y"}}}, "input.columns", "has no column 'txt'; it has text"),
        ({"dtype": "int8"}, "dtype", "'auto', 'float32'"),
        ({"priority": 11}, "priority", "less than or equal to 9"),
        ({"priority": "5"}, "priority", "valid integer"),
        ({"seed": True}, "seed", "valid integer"),
        ({"batch_size": 0}, "batch_size", "greater than 0"),
        ({"input": {"uri": []}}, "input.uri", "at least 1 item"),
        ({"params": {"top_k": True}}, "params.top_k", "valid integer, not True"),
        ({"input": "s3://raw/"}, "input", "write {uri: s3://raw/}"),
        ({"max_errors": 1.5}, "max_errors", "neither a count nor a share"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(change: dict[str, Any], field: str, says: str) -> None:
    found = problems(spec(**change))
    assert says in found[field], found


def test_missing_keys_are_all_named() -> None:
    assert problems({"task": "text-classification"}) == dict.fromkeys(["model", "input", "output"], "is required")


def test_every_problem_is_reported_at_once() -> None:
    wrong = spec(dtype="int8", priority=-1, colour="red", params={"nope": 1})
    assert set(problems(wrong)) == {"dtype", "priority", "colour", "params.nope"}


def test_a_key_left_empty_means_its_default() -> None:
    assert parse_spec(spec(params=None, shard=None, labels=None)) == parse_spec(spec())


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_spec_is_a_mapping(data: object) -> None:
    assert "mapping" in problems(data)[""]


def test_the_fingerprint_is_of_what_decides_the_results() -> None:
    def of(**changes: Any) -> str:
        return parse_spec(spec(**changes)).fingerprint()

    assert of() == of(labels={"team": "search"}) == of(priority=9) == of(task="sentiment-analysis")
    assert len({of(), of(seed=1), of(params={"top_k": 2}), of(dtype="bfloat16"), of(model="org/other")}) == 5


def test_json_schema_has_each_task_and_its_parameters() -> None:
    schema = spec_json_schema()
    assert "text-classification" in schema["properties"]["task"]["enum"]
    (then,) = [case["then"] for case in schema["allOf"] if "ner" in case["if"]["properties"]["task"]["enum"]]
    params, empty = then["properties"]["params"]["anyOf"]
    assert "stride" in params["properties"]
    assert empty == {"type": "null"}
    assert set(schema["properties"]) == set(JobSpec.model_fields)
