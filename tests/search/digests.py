"""Archives that tests change as somebody would who knows their digests."""

import json
from collections.abc import Sequence

from search.archive_lines import chained, line_of


def with_digests(lines: Sequence[bytes]) -> bytes:
    """An archive of these lines, the header first, with digests that fit them."""
    records = [json.loads(line) for line in lines]
    digest = chained("", records[0])
    for record in records[1:]:
        record.pop("digest")
        digest = chained(digest, record)
        record["digest"] = digest
    return b"".join(line_of(record) for record in records)
