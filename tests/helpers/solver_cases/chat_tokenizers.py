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

from eightfold.demo import model_path

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


GLM_TOKENS = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
              "<|observation|>"]  # fmt: skip
GLM_ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>",
             "</tool_response>", "<arg_key>", "</arg_key>", "<arg_value>",
             "</arg_value>"]  # fmt: skip

GLM_TEMPLATE = """[gMASK]<sop>
{%- if tools %}<|system|>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}For a call write <tool_call>NAME
<arg_key>KEY</arg_key>
<arg_value>VALUE</arg_value>
</tool_call>{% endif %}{% for m in messages -%}
{% if m['role'] == 'tool' %}{% if loop.previtem['role'] != 'tool' %}<|observation|>{% endif %}
{{ '\\n<tool_response>' }}
{{ m['content'] }}
</tool_response>
{%- else %}<|{{ m['role'] }}|>
{{ m['content'] }}{% for call in m.get('tool_calls') or [] %}
<tool_call>{{ call['function']['name'] }}
{% for key, value in call['function']['arguments'].items() %}<arg_key>{{ key }}</arg_key>
<arg_value>{{ value }}</arg_value>
{% endfor %}</tool_call>{% endfor %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
<think>{% endif %}"""

MISTRAL_TOKENS = ["<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                  "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
                  "[THINK]", "[/THINK]"]  # fmt: skip

MISTRAL_TEMPLATE = """{{ bos_token }}{% set ns = namespace(system='', last=0) %}
{%- for m in messages %}{% if m['role'] == 'system' %}{% set ns.system = m['content'] %}
{%- elif m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages -%}
{% if m['role'] == 'user' %}{% if loop.index0 == ns.last -%}
{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]
{%- if ns.system %}{{ ns.system }}

{% endif %}{% else %}[INST]{% endif %}{{ m['content'] }}[/INST]
{%- elif m['role'] == 'tool' -%}
[TOOL_RESULTS]{"content": {{ m['content'] | tojson }}, "call_id": "{{ m['tool_call_id'] }}"}
{%- if m['tool_call_id'] | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif -%}
[/TOOL_RESULTS]
{%- elif m.get('tool_calls') %}[TOOL_CALLS][{% for call in m['tool_calls'] -%}
{{ call['function'] | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}
{%- elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"""

LLAMA3_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                 "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]  # fmt: skip

LLAMA3_TEMPLATE = """{{ bos_token }}{% for m in messages -%}
{% if m.get('tool_calls') %}{% if m['tool_calls'] | length > 1 -%}
{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif -%}
{% set call = m['tool_calls'][0]['function'] %}<|start_header_id|>assistant<|end_header_id|>

{"name": "{{ call['name'] }}", "parameters": {{ call['arguments'] | tojson }}}<|eot_id|>
{%- elif m['role'] == 'tool' %}<|start_header_id|>ipython<|end_header_id|>

{{ m['content'] | tojson }}<|eot_id|>
{%- else %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>

{% if m['role'] == 'user' and loop.index0 < 2 and tools %}Tools: {{ tools | tojson }}

{% endif %}{{ m['content'] }}<|eot_id|>{% endif %}{% endfor -%}
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

DEEPSEEK_TOKENS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
DEEPSEEK_ADDED = ["<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>",
                  "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
                  "<｜tool▁calls▁end｜>",
                  "<｜tool▁outputs▁begin｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
                  "<｜tool▁outputs▁end｜>", "<think>", "</think>"]  # fmt: skip

DEEPSEEK_TEMPLATE = """{{ bos_token }}{% set ns = namespace(out=false) %}{% for m in messages -%}
{% if m['role'] == 'system' %}{{ m['content'] }}{% if tools and DECLARES %} Tools:
{{ tools | tojson }}{% endif %}{% elif m['role'] == 'user' -%}
<｜User｜>{{ m['content'] }}<｜Assistant｜>
{%- elif m['role'] == 'tool' %}{% if not ns.out %}<｜tool▁outputs▁begin｜>{% else %}
{% endif %}<｜tool▁output▁begin｜>{{ m['content'] }}<｜tool▁output▁end｜>{% set ns.out = true -%}
{% elif m['content'] is none %}<｜tool▁calls▁begin｜>{% for call in m['tool_calls'] -%}
<｜tool▁call▁begin｜>{{ call['type'] }}<｜tool▁sep｜>{{ call['function']['name'] }}
```json
{{ call['function']['arguments'] + '' }}
```<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{{ eos_token }}
{%- else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor -%}
{% if ns.out %}<｜tool▁outputs▁end｜>{% endif -%}
{% if add_generation_prompt and ns.out %}<｜Assistant｜>{% endif %}<think>
"""

COMMAND_TOKENS = ["<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
                  "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_THINKING|>",
                  "<|END_THINKING|>", "<|START_ACTION|>", "<|END_ACTION|>",
                  "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>", "<|START_RESPONSE|>",
                  "<|END_RESPONSE|>"]  # fmt: skip

COMMAND_TEMPLATE = """{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>
{%- if m['role'] == 'tool' -%}
<|SYSTEM_TOKEN|><|START_TOOL_RESULT|>[
    {
        "tool_call_id": "{{ loop.index0 }}",
        "results": {
            "0": {{ m['content'] | tojson }}
        }
    }
]<|END_TOOL_RESULT|>
{%- elif m.get('tool_calls') %}<|CHATBOT_TOKEN|><|START_ACTION|>[
    {% for call in m['tool_calls'] -%}
{"tool_name": "{{ call['function']['name'] }}", "parameters": {{ call['function']['arguments'] }}}
    {%- endfor %}
]<|END_ACTION|>
{%- elif m['role'] == 'assistant' -%}
<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m['content'] }}<|END_RESPONSE|>
{%- elif m['role'] == 'system' %}<|SYSTEM_TOKEN|>{{ m['content'] }} {{ (tools or []) | tojson }}
{%- else %}<|USER_TOKEN|>{{ m['content'] }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor -%}
{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"""

HARMONY_TOKENS = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>",
                  "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>",
                  "<|reserved_9|>"]  # fmt: skip

HARMONY_TEMPLATE = model_path().parent / "gpt_oss" / "chat_template.jinja"

SEED_ADDED = ["<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"]

SEED_TEMPLATE = """{% for m in messages %}{{ bos_token }}{{ m['role'] }}
{% if m['role'] == 'system' and tools %}Tools: {{ tools | tojson }} Calls: <seed:tool_call>
<function=NAME>
<parameter=KEY>VALUE</parameter>
</function>
</seed:tool_call>
{% endif %}{{ m['content'] }}{% for call in m.get('tool_calls') or [] %}<seed:tool_call>
<function={{ call['function']['name'] }}>
{% for key, value in call['function']['arguments'].items() -%}
<parameter={{ key }}>{{ value }}</parameter>
{% endfor %}</function>
</seed:tool_call>{% endfor %}{{ eos_token }}{% endfor -%}
{% if add_generation_prompt %}{{ bos_token }}assistant
{% endif %}"""


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


def glm() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(GLM_TOKENS, GLM_ADDED, eos_token="<|endoftext|>")
    tokenizer.chat_template = GLM_TEMPLATE
    return tokenizer


def mistral() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(MISTRAL_TOKENS, [], bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer


def llama3() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(LLAMA3_TOKENS, [], bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.chat_template = LLAMA3_TEMPLATE
    return tokenizer


def deepseek(declares: bool = True) -> PreTrainedTokenizerFast:
    bos, eos = DEEPSEEK_TOKENS
    tokenizer = byte_level(DEEPSEEK_TOKENS, DEEPSEEK_ADDED, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = DEEPSEEK_TEMPLATE.replace("DECLARES", str(declares).lower())
    return tokenizer


def command() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(
        COMMAND_TOKENS, [], bos_token="<BOS_TOKEN>", eos_token="<|END_OF_TURN_TOKEN|>"
    )
    tokenizer.chat_template = COMMAND_TEMPLATE
    return tokenizer


def seed() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(
        ["<seed:bos>", "<seed:eos>"], SEED_ADDED, bos_token="<seed:bos>", eos_token="<seed:eos>"
    )
    tokenizer.chat_template = SEED_TEMPLATE
    return tokenizer


def harmony() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(HARMONY_TOKENS, [], eos_token="<|return|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = HARMONY_TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


FAMILIES = {
    "gemma4": gemma,
    "hermes": qwen,
    "fenced": llama,
    "glm": glm,
    "mistral": mistral,
    "llama3": llama3,
    "deepseek": deepseek,
    "command": command,
    "harmony": harmony,
}
"""A tokenizer for each format, by the format's name."""
