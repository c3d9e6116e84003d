"""Generation: what an exported network writes is what transformers writes with the checkpoint that it came from."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.tokenizer import files_of
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.import_command import import_to
from experiments.subnets.generation import continued
from search_spaces import build_space
from supernet.engine.supernet import build_supernet
from supernet.export.export import export_subnet
from supernet.tasks.tokens import Tokens
from tests.experiments.data.test_tokenizers import WORDS, tokenizer
from tests.experiments.small_checkpoint import write_checkpoint_of

COUNT = 12


def exported(imported: Path, directory: Path, bos: bool) -> Path:
    """Exports the largest network of an import, with its tokenizer."""
    found = ImportedDirectory(imported)
    settings = {name: value for name, value in found.space.items() if name != "family"}
    net = build_supernet(build_space("language", None, {**settings, "context": 32}))
    assert found.tokenizer is not None
    export_subnet(
        net, jax.tree.map(jnp.asarray, found.params(net)), net.space.largest, directory, statistics=None,
        preprocessing=Tokens(320, 32), input_shape=(32,), labels=(), probe=np.arange(32)[None],
        measure=lambda subnet: {}, stablehlo=False, tokenizer=files_of(str(found.tokenizer)), bos=bos,
    )  # fmt: skip
    return directory


def test_greedy_text_is_that_of_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `parity`")
    write_checkpoint_of("llama", tmp_path / "llama", vocabulary=320)
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    made = tokenizer(tmp_path / "made", template="<s> $A", truncation=truncation)
    for file in made.iterdir():
        file.rename(tmp_path / "llama" / file.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "llama"))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "llama"))
    prompt = WORDS[:20]

    def greedy(ids: list[int], ends: list[int]) -> list[int]:
        """The tokens up to the first end."""
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=COUNT, do_sample=False, eos_token_id=ends, pad_token_id=ends[0]
        )[0].tolist()[len(ids) :]
        return made[:-1] if made[-1] in ends else made

    given, bare = theirs.encode(prompt), theirs.encode(prompt, add_special_tokens=False)
    assert given == [0, *bare]
    free = greedy(given, [1])
    assert len(free) == COUNT
    assert free != greedy(bare, [1])
    stop = next(token for token in free[3:] if token not in free[:3])
    (tmp_path / "llama" / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, stop]}))
    import_to(str(tmp_path / "llama"), tmp_path / "ours")
    subnet = exported(tmp_path / "ours", tmp_path / "subnet", bos=True)
    found = continued(subnet, prompt, COUNT, 0.0, 0)
    assert found.tokens == greedy(given, [1, stop]) == free[: free.index(stop)]
    assert found.text == theirs.decode(found.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    without = continued(subnet, prompt, COUNT, 0.0, 0, bos=False)
    assert without.tokens == greedy(bare, [1, stop])
    assert continued(exported(tmp_path / "ours", tmp_path / "bare", bos=False), prompt, COUNT, 0.0, 0) == without
