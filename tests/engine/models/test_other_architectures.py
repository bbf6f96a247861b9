"""Architectures beside those of tiny_models.py: each runs correctly or is refused by name."""

from pathlib import Path

import pytest
import torch
import transformers
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import LAYER_TYPES, LAYERS, VARIANTS, rope
from helpers.engine_cases.engine_driver import greedy_reference, run_until_idle
from transformers import AutoModelForCausalLM, PretrainedConfig

from eightfold.engine import Engine, EngineConfig, SamplingParams, UnsupportedModelError
from eightfold.engine.inspection.architecture import inspect_architecture

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 64}


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_tokens_equal_generate_beyond_the_window_and_across_a_pause(name: str) -> None:
    torch.manual_seed(0)
    # With these scales no token is repeated again and again.
    scale = 0.1 if "tied" in name else 1.0 if "gemma" in name else 20.0
    reference = tiny_models.randomize(AutoModelForCausalLM.from_config(VARIANTS[name]()), scale)
    model = AutoModelForCausalLM.from_config(VARIANTS[name]())
    model.load_state_dict(reference.state_dict())
    prompt, tool = torch.randint(3, tiny_models.VOCABULARY, (40,)).tolist(), [5, 9, 11]
    first = greedy_reference(reference, prompt, 6)
    assert len(set(first)) > 1, "a reference that repeats one token proves little"
    end = first.index(first[4]) + 1
    second = greedy_reference(reference, [*prompt, *first[:end], *tool], 6)
    engine = Engine(model, EngineConfig(max_step_tokens=16, max_running=8, page_size=8))
    params = SamplingParams(
        temperature=0, pause_token_ids=(first[4],), stop_token_ids=(), max_new_tokens=end + 6
    )
    seq = engine.submit(prompt, params)
    other = engine.submit(prompt[:7], SamplingParams(temperature=0, max_new_tokens=9))
    generated = run_until_idle(engine)
    assert generated[seq] == first[:end]
    assert generated[other] == greedy_reference(reference, prompt[:7], 9)[: len(generated[other])]
    engine.resume(seq, tool)
    generated = run_until_idle(engine)
    stop = second.index(first[4]) + 1 if first[4] in second else 6
    assert generated[seq] == second[:stop]


MOSHI = {**LAYERS, "sliding_window": tiny_models.WINDOW, "ffn_dim": 64}  # its masks show no window

REFUSED = [
    (lambda: transformers.Qwen3NextConfig(**SMALL), "qwen3_next has 'linear_attention' layers"),
    (lambda: transformers.JambaConfig(**SMALL), "jamba"),
    (lambda: transformers.FalconH1Config(**SMALL), "falcon_h1"),
    (lambda: transformers.MambaConfig(**SMALL), "mamba"),
    (lambda: transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4), "gpt2"),
    (lambda: transformers.OPTConfig(**SMALL, num_attention_heads=4, ffn_dim=64), "opt"),
    (lambda: transformers.BloomConfig(n_layer=2, hidden_size=32, n_head=4), "bloom"),
    (lambda: transformers.BertConfig(num_hidden_layers=1, hidden_size=24), "bert"),
    (lambda: transformers.T5Config(num_layers=1, d_model=32, d_ff=64), "t5"),
    (lambda: transformers.DeepseekV3Config(**SMALL, n_routed_experts=8), "deepseek_v3"),
    (lambda: transformers.Llama4TextConfig(**SMALL), "llama4_text has 'chunked_attention' layers"),
    (
        lambda: transformers.Lfm2Config(**LAYERS, layer_types=["conv", LAYER_TYPES[1]]),
        "'conv' layers",
    ),
    (lambda: transformers.MllamaConfig(), "mllama"),
    (
        lambda: transformers.MoshiConfig(**MOSHI),
        "Layer 0 of moshi sees all tokens|moshi does not let",
    ),
    (lambda: transformers.DiffLlamaConfig(**LAYERS), "diffllama does not (attend once|let its)"),
    (lambda: transformers.DogeConfig(**LAYERS), "doge asks attention for a mask of its own"),
    (
        lambda: transformers.Gemma3TextConfig(**LAYERS, use_bidirectional_attention=True),
        "not causal",
    ),
    (
        lambda: transformers.LlamaConfig(**LAYERS, hidden_act="none"),
        "transformers cannot build this llama model",
    ),
    (
        lambda: transformers.Qwen2Config(**{**LAYERS, "num_key_value_heads": 8}),
        "qwen2 has heads of 8 elements, and 0 heads of queries for each",
    ),
    (lambda: transformers.LlamaConfig(**{**LAYERS, "num_hidden_layers": 0}), "llama has no layers"),
    (
        lambda: transformers.MixtralConfig(**LAYERS, num_local_experts=4, num_experts_per_tok=0),
        "mixtral has num_experts_per_tok 0 of 4 experts",
    ),
    (
        lambda: transformers.Lfm2Config(
            **LAYERS, layer_types=["full_attention"] * 2, is_causal=False
        ),
        "lfm2 has attention that is not causal",
    ),
    (  # whose rotary embedding reads positions
        lambda: transformers.LlamaConfig(
            **LAYERS, **rope("dynamic", factor=2.0), sliding_window=tiny_models.WINDOW
        ),
        "Layer 0 of llama sees all tokens before it",
    ),
    (lambda: transformers.LlamaConfig(**LAYERS, sliding_window="16"), "llama is not a number of"),
    (lambda: transformers.LlamaConfig(**LAYERS | {"max_position_embeddings": -5}), "how many pos"),
    (lambda: transformers.LlamaConfig(**LAYERS, sliding_window=0), "a sliding_window of 0; set"),
    (  # queries of 4 * 128 elements, which its last projection does not take
        lambda: transformers.HeliumConfig(**LAYERS, head_dim=128),
        "transformers cannot run this helium model: RuntimeError",
    ),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_model_that_cannot_be_paged_is_refused_before_weights_are_read(
    make, words: str, tmp_path: Path
) -> None:
    config: PretrainedConfig = make()
    config.save_pretrained(tmp_path)
    # Reading these bytes as weights would fail.
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(UnsupportedModelError, match=words) as error:
        Engine(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("window", [500, 512, 4096])
def test_a_window_may_be_longer_than_any_sequence(window: int) -> None:
    assert LAYERS["max_position_embeddings"] == 512
    config = transformers.MistralConfig(**LAYERS, sliding_window=window)
    assert inspect_architecture(config).windows == (window,)


def test_rotary_embeddings_that_depend_on_the_longest_sequence_limit_the_context(caplog) -> None:
    config = VARIANTS["phi3_longrope"]()
    assert config.max_position_embeddings == 512
    assert inspect_architecture(config).max_positions == 64
    assert "limited to 64 tokens" in caplog.text
    assert inspect_architecture(VARIANTS["llama_dynamic"]()).max_positions == 512


def test_inspection_leaves_the_configuration_alone() -> None:
    config = VARIANTS["gemma2_softcap"]()
    before = config.to_dict(), config._attn_implementation
    found = inspect_architecture(config)
    assert (config.to_dict(), config._attn_implementation) == before
    assert found.softcap
    assert not inspect_architecture(VARIANTS["olmo3"]()).softcap
