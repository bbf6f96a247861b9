"""Lists the jobs of `kernel_times.py`: Gemma-4-31B's shapes and each kernel's configurations.

The first configuration of each list is the one in use; it was chosen among the others.
"""

from dataclasses import asdict

from eightfold.kernels.attention.paged_decode import DecodeConfig
from eightfold.kernels.attention.paged_prefill import PrefillConfig
from eightfold.kernels.layers.linear_few_rows import LinearConfig, linear_config

HIDDEN, INNER, VOCABULARY, HEADS = 5376, 21504, 262144, 32
POOL_ELEMENTS = 3_000_000_000  # bfloat16, of which weights and caches are views
PAGE = 64
LINEAR_LAYERS = {  # name: output features, input features, gated
    "qkv sliding": (16384, HIDDEN, False),
    "o sliding": (HIDDEN, 8192, False),
    "qk global": (18432, HIDDEN, False),
    "o global": (HIDDEN, 16384, False),
    "gate_up": (INNER, HIDDEN, True),
    "down": (HIDDEN, INNER, False),
    "lm_head": (VOCABULARY, HIDDEN, False),
}
EXPERT_LAYERS = {  # model: experts, hidden, inner, top_k, in MXFP4, activation
    "gpt-oss-120b": (128, 2880, 2880, 4, True, "clamped_swiglu"),
    "gpt-oss-20b": (32, 2880, 2880, 4, True, "clamped_swiglu"),
    "Qwen3-30B-A3B": (128, 2048, 768, 8, False, "silu"),
    "Gemma-4-26B-A4B": (128, 2816, 704, 8, False, "gelu_tanh"),
}
FEW_ROWS_CONFIGS = [
    LinearConfig(64, 128, 4, 5, 1, 0, True),
    LinearConfig(64, 128, 4, 6, 1, 0, True),
    LinearConfig(64, 128, 4, 5, 4, 0, True),
    LinearConfig(64, 256, 4, 5, 1, 0, True),
]
GATED_CONFIGS = [
    LinearConfig(64, 128, 4, 5, 1, 512, True),
    LinearConfig(64, 128, 4, 3, 1, 0, True),
]
WIDE_CONFIGS = [  # 64 rows
    LinearConfig(64, 128, 4, 5, 1, 0, True),
    LinearConfig(64, 128, 4, 3, 1, 0, True),
    LinearConfig(128, 128, 8, 4, 1, 0, True),
]
SLIDING_CONFIGS = [
    DecodeConfig(32, 0, 4, 8),
    DecodeConfig(64, 0, 4, 3),
    DecodeConfig(32, 0, 4, 5),
    DecodeConfig(32, 512, 4, 5, 2),
]
GLOBAL_CONFIGS = [
    DecodeConfig(32, 1024, 4, 5, 2, True, 256),
    DecodeConfig(32, 1024, 4, 5, 2, True),
    DecodeConfig(32, 512, 4, 5, 2, True),
    DecodeConfig(32, 256, 4, 5, 2, True),
    DecodeConfig(32, 1024, 4, 5, 2),
    DecodeConfig(32, 512, 4, 5, 2),
]
PREFILL_CONFIGS = {
    "sliding": [PrefillConfig(128, 64, 8, 2, True), PrefillConfig(128, 64, 8, 2)],
    "global, two copies": [PrefillConfig(64, 32, 8, 2)],
    "global": [PrefillConfig(64, 32, 8, 2, True), PrefillConfig(64, 32, 8, 2)],
}
# Settings of the linear layers in whole layers, other than `linear_config`'s. They show what early
# prefetches do there.
LAYER_SETTINGS: dict[str, dict[str, LinearConfig]] = {
    "as used": {},
    "gate+up 512 B early": {"gate_up": LinearConfig(64, 128, 4, 4, 1, 512, True)},
    "gate+up 2 KB early": {"gate_up": LinearConfig(64, 128, 4, 4, 1, 2048, True)},
    "qkv 1 KB early": {
        "qkv sliding": LinearConfig(64, 128, 4, 5, 1, 1024, True),
        "qk global": LinearConfig(64, 256, 4, 5, 1, 1024, True),
    },
    "o, down 1 KB early": {
        name: LinearConfig(64, 128, 4, 5, 1, 1024, True)
        for name in ("o sliding", "o global", "down")
    },
    "down in 4 parts": {"down": LinearConfig(64, 128, 4, 5, 4, 0, True)},
    "o, down in 4 parts": {
        name: LinearConfig(64, 128, 4, 5, 4, 0, True) for name in ("o sliding", "o global", "down")
    },
}
KINDS = (
    *("launch", "linear", "small", "sampling", "layer", "prefill", "dense", "decode"),
    *("experts", "grouped"),
    "chain",  # only if asked for
)
ROWS = (8, 16, 32, 64)  # of a step: sequences times drafted tokens


def describe(config: object) -> str:
    """Return a configuration's values, separated by commas."""
    return ",".join(str(int(value)) for value in asdict(config).values())  # type: ignore[call-overload]


def _linear_jobs() -> list[tuple]:
    found: list[tuple] = []
    for name, (n, inner, gated) in LINEAR_LAYERS.items():
        used = {rows: linear_config(rows, n, inner, gated) for rows in ROWS}
        found += [("linear", name, rows, config) for rows, config in used.items()]
        configs = GATED_CONFIGS if gated else FEW_ROWS_CONFIGS
        if name == "lm_head":
            configs = [c for c in configs if c.splits == 1]
        found += [("linear", name, 8, c) for c in configs if c != used[8]]
        if not gated:
            found += [("linear", name, 64, c) for c in WIDE_CONFIGS if c != used[64]]
    return found


def _decode_jobs() -> list[tuple]:
    found: list[tuple] = [("decode", "sliding", 8, 1, 7000, c) for c in SLIDING_CONFIGS]
    found += [("decode", "sliding", 8, 8, 7000, SLIDING_CONFIGS[0])]
    found += [("decode", "sliding", rows, 1, 7000, SLIDING_CONFIGS[0]) for rows in (16, 32)]
    found += [
        ("decode", "global", 8, 1, context, config)
        for context in (1024, 7000, 15000, 32000)
        for config in GLOBAL_CONFIGS
    ]
    found += [("decode", "global", 8, 8, 7000, c) for c in GLOBAL_CONFIGS[:2]]
    # Without the Hopper kernel, 64 rows need eight warps.
    found += [("decode", "global", 8, 8, 7000, DecodeConfig(32, 1024, 8, 4, 1))]
    found += [("decode", "global", rows, 1, 7000, GLOBAL_CONFIGS[0]) for rows in (16, 32)]
    return found


def list_jobs(only: list[str]) -> list[tuple]:
    """Return the jobs of some `KINDS`, each as (a key of `JOBS`, its arguments).

    Jobs are small, because they are sent to the processes that compile the kernels.
    """
    found: list[tuple] = []
    if "launch" in only:
        found += [("launch", kind, rows) for kind in ("sliding", "global") for rows in (8, 64)]
    if "linear" in only:
        found += _linear_jobs()
    if "decode" in only:
        found += _decode_jobs()
    if "prefill" in only:
        for kind, configs in PREFILL_CONFIGS.items():
            found += [("prefill", kind, c) for c in configs]
    if "dense" in only:
        found += [("dense", rows, own) for rows in (1024, 2048) for own in (True, False)]
    if "experts" in only:
        found += [
            ("experts", model, rows) for model in EXPERT_LAYERS for rows in (1, 8, 16, 64, 256)
        ]
    if "grouped" in only:
        found += [("grouped", model, rows) for model in EXPERT_LAYERS for rows in (1024, 4096)]
    if "sampling" in only:
        found += [("sampling", rows, kept) for rows in (8, 64) for kept in (False, True)]
    if "layer" in only:
        found += [("layer", context, "as used") for context in (1024, 7000, 15000)]
    if "chain" in only:
        found += [("layer", 7000, name) for name in LAYER_SETTINGS]
    if "small" in only:
        names = ("add_rms_norm", "add_rms_norm 4", "rotary sliding", "rotary global")
        found += [("small", name, 8) for name in names]
        found += [
            ("small", name, 4096) for name in (*names, "gated_gelu") if name != "add_rms_norm 4"
        ]
    return found
