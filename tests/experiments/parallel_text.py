"""Parallel text of a few words, in which each word has one translation."""

import gzip
import random
from pathlib import Path

SOURCE = ["a", "man", "dog", "runs", "red", "house", "the", "big", "tree", "walks"]
TARGET = ["ein", "Mann", "Hund", "rennt", "rot", "Haus", "der", "groß", "Baum", "geht"]


def write_pairs(directory: Path, train: int = 40, others: int = 8, longest: int = 8) -> Path:
    """Writes train, val and test in en and de; the training text of de is compressed."""
    drawn = random.Random(0)
    directory.mkdir(exist_ok=True)
    for split, count in (("train", train), ("val", others), ("test", others)):
        rows = [[drawn.randrange(10) for _ in range(drawn.randint(2, longest))] for _ in range(count)]
        for language, words in (("en", SOURCE), ("de", TARGET)):
            text = "".join(" ".join(words[i] for i in row) + "\n" for row in rows).encode()
            name = f"{split}.{language}"
            if name == "train.de":
                (directory / f"{name}.gz").write_bytes(gzip.compress(text))
            else:
                (directory / name).write_bytes(text)
    return directory
