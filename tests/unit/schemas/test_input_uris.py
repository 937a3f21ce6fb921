"""Globs, and which files an input's URIs cover."""

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.input_uris import InputUris, fixed_prefix, glob_pattern, is_glob, wildcards

PIECES = ["a", "b", "/", "*", "**", "?", "**/", "[ab]", "[!a]", "."]


def plainly(glob: str, text: str) -> bool:
    """What a glob means, one piece at a time."""
    pieces: list[str] = []
    while glob:
        piece = next((p for p in ("**/", "**", "[ab]", "[!a]") if glob.startswith(p)), glob[0])
        pieces, glob = [*pieces, piece], glob.removeprefix(piece)

    @cache
    def matches(piece: int, at: int) -> bool:
        if piece == len(pieces):
            return at == len(text)
        kind = pieces[piece]
        if kind in ("**", "**/"):
            return any(matches(piece + 1, end) for end in range(at, len(text) + 1))
        if matches(piece + 1, at) and kind == "*":
            return True
        if at == len(text):
            return False
        one = text[at]
        fits = {"*": one != "/", "?": one != "/", "[ab]": one in "ab", "[!a]": one != "a"}.get(kind, one == kind)
        return fits and matches(piece if kind == "*" else piece + 1, at + 1)

    return matches(0, 0)


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.text("ab/.", max_size=9))
@example("**a*b", "a/ab")
@example("b***/", "ba")
def test_a_glob_matches_what_it_says(glob: str, text: str) -> None:
    assert bool(glob_pattern(glob).fullmatch(text)) == plainly(glob, text)


@pytest.mark.parametrize(
    "glob", ["**a" * 20 + "**b", "*a" * 20 + "*b", "**?*a*a*a*a*b" * 3, "**" * 500 + "b", "**/" * 20]
)
def test_no_glob_tries_again_and_again(glob: str) -> None:
    """With backtracking, the first of these takes longer than the tests may."""
    for text in ("a" * 1000, "a/" * 500, ("a" * 30 + "/") * 32):
        assert not glob_pattern(f"s3://b/{glob}c").fullmatch(f"s3://b/{text}")


def test_what_the_uris_of_an_input_cover() -> None:
    uris = InputUris(["s3://b/one.parquet", "s3://b/folder/", "s3://b/both", "s3://b/g/*.pq", "s3://b/x[1].parquet"])
    for uri in ("one.parquet", "folder/a", "folder/a/b", "both", "both/a", "g/a.pq", "x[1].parquet", "x1.parquet"):
        assert uris.cover(f"s3://b/{uri}"), uri
    for uri in ("one.parquetx", "folder", "folderx/a", "bot", "g/a/b.pq", "g/a.parquet", "x2.parquet", "", "other"):
        assert not uris.cover(f"s3://b/{uri}"), uri
    assert not uris.cover("/etc/passwd")
    assert InputUris(["/data/"]).cover("/data/in.parquet")


def test_the_parts_of_a_glob() -> None:
    assert [is_glob(uri) for uri in ("s3://b/a", "s3://b/a*", "s3://b/[a]", "s3://b/a?")] == [False, True, True, True]
    assert fixed_prefix("s3://b/a-*/x") == "s3://b/a-"
    assert [wildcards(uri) for uri in ("a", "a*", "**/*?", "[ab]*")] == [0, 1, 3, 2]
