"""Builds small tokenizers with the chat template of each format."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Solve the problem. user model assistant system thought value: response:python call:python",
    "How many positive whole-number divisors does 196 have? print(sum(range(10)))",
    "The answer is 42, as \\boxed{42}. Output: name arguments code",
] * 4

GEMMA_TOKENS = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
]

GEMMA_TEMPLATE = """{{ bos_token }}<|turn>system
{% if enable_thinking %}<|think|>
{% endif %}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}
{%- for tool in tools or [] -%}
<|tool>declaration:{{ tool['function']['name'] }}<tool|>{%- endfor %}<turn|>
{% set ns = namespace(open=false) %}{% for m in messages if m['role'] != 'system' -%}
{% if m['role'] == 'tool' -%}
<|tool_response>response:python{value:<|"|>{{ m['content'] }}<|"|>}<tool_response|>
{%- if REOPEN %}<|channel>thought
{% endif %}{% set ns.open = true -%}
{% else %}{% set ns.open = false %}<|turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ m['content'] | trim }}{% if m.get('tool_calls') %}<|tool_call>call:python{}<tool_call|>
{%- else %}<turn|>
{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt and not ns.open %}<|turn>model
{% endif %}"""

QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_ADDED = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]

QWEN_TEMPLATE = """{% if messages[0]['role'] == 'system' %}<|im_start|>system
{{ messages[0]['content'] }}{% if tools %} Calls: <tool_call>{...}</tool_call>{% endif %}<|im_end|>
{% endif %}{% for m in messages if m['role'] != 'system' -%}
{% if m['role'] == 'tool' %}{% if loop.previtem['role'] != 'tool' %}<|im_start|>user{% endif %}
{{ '\\n<tool_response>' }}
{{ m['content'] }}
</tool_response>{% if loop.last or loop.nextitem['role'] != 'tool' %}<|im_end|>
{% endif %}{% else %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}{% for call in m.get('tool_calls') or [] %}
{{ '\\n<tool_call>' }}
{"name": "python", "arguments": {{ call['function']['arguments'] | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if OPENS %}<think>
{% endif %}{% endif %}"""

LLAMA_TEMPLATE = """{% for m in messages %}{% if m['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{{- '[' ~ m['role'] }}] {{ m['content'] }}<end>
{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"""


def sentencepiece_like(special: list[str], **kwargs: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Gemma's: a mark for spaces, byte fallback, no split into words."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    alphabet = [chr(c) for c in range(32, 127)] + ["\n"]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special + byte_tokens, initial_alphabet=alphabet
    )
    core.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **kwargs)


def byte_level(special: list[str], added: list[str], **kwargs: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Qwen's: bytes, split words, some control tokens not special."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator(CORPUS, trainer)
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=core, **kwargs)


def gemma(reopen: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = sentencepiece_like(
        GEMMA_TOKENS, bos_token="<bos>", eos_token="<turn|>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = GEMMA_TEMPLATE.replace("REOPEN", str(reopen).lower())
    return tokenizer


def qwen(opens: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = byte_level(QWEN_TOKENS, QWEN_ADDED, eos_token="<|im_end|>")
    tokenizer.chat_template = QWEN_TEMPLATE.replace("OPENS", str(opens).lower())
    return tokenizer


def llama() -> PreTrainedTokenizerFast:
    tokenizer = sentencepiece_like(["<unk>", "<end>"], eos_token="<end>", unk_token="<unk>")
    tokenizer.chat_template = LLAMA_TEMPLATE
    return tokenizer


FAMILIES = {"gemma4": gemma, "hermes": qwen, "fenced": llama}
