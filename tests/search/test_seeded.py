"""A search that begins with given architectures: with every searcher, replayed, and recorded in the archive."""

import json

import numpy as np
import pytest

from search import SEARCHERS, Archive, run_search
from search.seeded import Seeded

FIRST = ((1, 1, 0, 1, 1, 0), (0, 1, 1, 1, 0, 0))


@pytest.fixture(params=sorted(SEARCHERS))
def seeded(request, tiny, limits) -> Seeded:
    searcher = SEARCHERS[request.param](tiny, limits(tiny, "macs<=100%", "macs<=60%"), 3)
    first = tuple(tiny.architecture(genes).genes for genes in FIRST)
    return Seeded.of(searcher, first)


def test_given_architectures_come_first_and_once(seeded, landscape, tmp_path) -> None:
    archive = Archive.open(tmp_path / "a.jsonl", seeded)
    run_search(seeded, landscape(seeded.space), archive, 25)
    assert [tuple(row) for row in archive.genes[:2].tolist()] == list(seeded.first)
    assert len(np.unique(archive.genes, axis=0)) == len(archive) == 25


def test_a_search_that_was_stopped_after_them_goes_on_to_the_same_archive(seeded, landscape, tmp_path) -> None:
    evaluate = landscape(seeded.space)
    whole = run_search(seeded, evaluate, Archive.open(tmp_path / "whole.jsonl", seeded), 20)
    path = tmp_path / "parts.jsonl"
    for wanted in (1, 2, 20):
        run_search(seeded, evaluate, Archive.open(path, seeded), wanted)
    assert path.read_bytes() == whole.path.read_bytes()


def test_the_header_tells_it_from_the_search_without_them(seeded, tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    Archive.open(path, seeded)
    header = json.loads(path.read_text())
    assert header["searcher"]["first"] == [list(genes) for genes in seeded.first]
    assert header["searcher"]["strategy"] == type(seeded.inner).__name__
    for other in (seeded.inner, Seeded.of(seeded.inner, seeded.first[:1])):
        with pytest.raises(ValueError, match="archive is of another search"):
            Archive.open(path, other)
