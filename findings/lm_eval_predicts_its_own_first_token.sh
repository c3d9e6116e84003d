#!/usr/bin/env bash
# lm-evaluation-harness 0.4.13 computes perplexities of whole texts (`loglikelihood_rolling`: WikiText, bits per byte) from a
# context of one prefix token, the tokenizer's BOS. Its `hf` model tokenises the text as the tokenizer does by default. With a
# tokenizer that puts BOS before texts (Llama's, Mistral's, Gemma's) the text then begins with a second BOS, which is itself
# predicted, from the first one, and counted. Expected: the log-likelihood of the text given BOS. Models never saw BOS after
# BOS in training, so that this one token can cost more than any other, and figures of models with and without such tokenizers
# cannot be compared, least of all on short texts. With `add_bos_token=False` the text alone is counted.
#
# Seen with: lm-eval 0.4.13, transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU), tokenizers 0.23.3, Python 3.11.
#   by default: -37.23, which is the text after two BOS (-37.23) and not the text after one (-26.34)
#   add_bos_token=False: -26.34
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed. Takes some minutes, mostly for downloads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  lm-eval==0.4.13 transformers==5.23.0 accelerate==1.15.0 torch==2.13.0
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = "<s> </s> one network holds every network of a space".split()
made = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, "</s>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>").save_pretrained("model")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=made.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=32, initializer_range=1.0, bos_token_id=0, eos_token_id=1,
)  # fmt: skip
model = LlamaForCausalLM(config).eval()
model.save_pretrained("model")

text = "one network holds every network"
tokens = made.encode(text, add_special_tokens=False).ids


def log_likelihood(predicted: list[int]) -> float:
    """Of tokens after one BOS."""
    whole = torch.tensor([[0, *predicted]])
    with torch.no_grad():
        scores = model(whole).logits.log_softmax(-1)[0, :-1]
    return scores.gather(1, whole[0, 1:, None]).sum().item()


def rolling(**settings: bool) -> float:
    lm = HFLM(pretrained="model", device="cpu", dtype="float32", batch_size=1, **settings)
    return lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], disable_tqdm=True)[0]


found, without = rolling(), rolling(add_bos_token=False)
one, two = log_likelihood(tokens), log_likelihood([0, *tokens])
print(f"by default: {found:.2f}, which is the text after two BOS ({two:.2f}) and not the text after one ({one:.2f})")
print(f"add_bos_token=False: {without:.2f}")
print("tokenizers", tokenizers.__version__)
same = abs(found - two) < 1e-3 and abs(without - one) < 1e-3 and abs(one - two) > 0.1
sys.exit(0 if same else 1)
PYTHON
