"""The engine on a GPU in bfloat16: each token is as good as the choice of transformers.

Sums in bfloat16 depend on their order, so that tokens need not be equal. Instead, the same model in
float32 is fed the engine's tokens. It must give each of them a logit that is not further below the
best one than the error of transformers' bfloat16 on that sequence.
"""

import copy
import gc
import random
from typing import Any

import pytest
import torch
from helpers.engine_cases import tiny_models
from helpers.engine_cases.config_variants import VARIANTS
from helpers.engine_cases.engine_driver import run_until_idle
from helpers.kernel_cases.kernel_devices import needs_hopper
from transformers import AutoModelForCausalLM

from eightfold.demo import model_path
from eightfold.engine import Engine, EngineConfig, ModelError, SamplingParams
from eightfold.engine.execution.runner_limits import RunnerLimits
from eightfold.engine.inspection.architecture import inspect_architecture
from eightfold.engine.models.fused.fused_decoder import FusedDecoder
from eightfold.engine.startup.runner_factory import choose_fused

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
NAMES = sorted(tiny_models.BUILDERS | tiny_models.FUSED_BUILDERS | tiny_models.WIDE_BUILDERS)
LENGTHS = (3, 40, 17, 1, 90)
NEW = 40


class Judge:
    """Judges tokens by the model in bfloat16 and in float32, both run by transformers."""

    def __init__(self, model: Any) -> None:
        self.plain = copy.deepcopy(model).cuda()
        self.exact = copy.deepcopy(model).float().cuda()
        self.agreed = self.usual = self.judged = 0

    def check(self, prompt: list[int], generated: list[int]) -> None:
        """Assert that each greedy token is the best one, or as good within the error."""
        ids = torch.tensor([prompt + generated[:-1]], device="cuda")
        with torch.inference_mode():
            exact = self.exact(ids).logits[0, len(prompt) - 1 :].float()
            plain = self.plain(ids).logits[0, len(prompt) - 1 :].float()
        error = (plain - exact).abs().amax(dim=1)
        chosen = exact.gather(1, torch.tensor(generated, device="cuda")[:, None])[:, 0]
        gap = exact.amax(dim=1) - chosen
        worst = int((gap - 3 * error).argmax())
        assert (gap <= 3 * error + 1e-3).all(), (
            f"token {worst} is {gap[worst]:.3f} below the best, but the error of bfloat16 is "
            f"{error[worst]:.3f}"
        )
        self.agreed += int((gap == 0).sum())
        self.usual += int((plain.argmax(1) == exact.argmax(1)).sum())
        self.judged += len(generated)

    def close(self, name: str) -> None:
        """Assert that float32's first choice is met as often as transformers' bfloat16 meets it."""
        mine, usual = self.agreed / self.judged, self.usual / self.judged
        print(f"{name}: first choices of float32: {mine:.1%}, with transformers {usual:.1%}")
        assert mine > usual - 0.05


def greedy(**changes: Any) -> SamplingParams:
    settings = {"temperature": 0, "max_new_tokens": NEW, "stop_token_ids": (), **changes}
    return SamplingParams(**settings)


def prompts() -> list[list[int]]:
    generator = random.Random(3)
    return [[generator.randrange(3, tiny_models.VOCABULARY) for _ in range(n)] for n in LENGTHS]


@pytest.mark.parametrize("kernels", [None, False])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_and_a_pause(name: str, kernels: bool | None) -> None:
    model = tiny_models.build(name).bfloat16()
    judge = Judge(model)
    config = EngineConfig(
        max_running=8, max_step_tokens=64, max_context=512, memory_fraction=0.01, kernels=kernels
    )
    engine = Engine(model.cuda(), config)
    first = {engine.submit(prompt, greedy()): prompt for prompt in prompts()}
    for seq, generated in run_until_idle(engine).items():
        assert len(generated) == NEW
        judge.check(first[seq], generated)
    prompt, tool = prompts()[1], [5, 9, 11, 4, 77]
    every = tuple(range(tiny_models.VOCABULARY))
    seq = engine.submit(prompt, greedy(pause_token_ids=every, max_new_tokens=5))
    history = list(prompt)
    while True:
        generated = run_until_idle(engine)[seq]
        judge.check(history, generated)
        history += generated
        if len(history) >= len(prompt) + 5 + 4 * len(tool):
            break
        engine.resume(seq, tool)
        history += tool
    assert engine.stats()["recomputed_tokens"] == 0
    judge.close(name)


@needs_hopper
def test_the_wide_model_runs_the_hopper_kernels() -> None:
    model = tiny_models.build("gemma4_wide")
    architecture = choose_fused(
        inspect_architecture(model.config), EngineConfig(), kernels=True
    ).architecture
    assert architecture is not None
    limits = RunnerLimits(max_running=1, max_step_tokens=64, max_context=256)
    decoder = FusedDecoder(model.bfloat16().cuda(), architecture, limits, 64)
    assert decoder.tails.fits, "otherwise the tests below do not run layer_tail"


@pytest.mark.parametrize("name", ["gemma4_one_copy", "gemma4_wide"])
def test_decode_steps_are_bitwise_independent_of_neighbors(name: str) -> None:
    """Every token pauses, so that all steps but those of prompts have single tokens only."""
    every = tuple(range(tiny_models.VOCABULARY))
    settings = {"top_p": 0.95, "top_k": 50, "stop_token_ids": (), "pause_token_ids": every}
    config = EngineConfig(max_running=16, max_step_tokens=64, max_context=512, memory_fraction=0.01)
    found = []
    for neighbors in (0, 4, 15):
        engine = Engine(tiny_models.build(name).bfloat16().cuda(), config)
        seqs = []
        for seed in range(neighbors + 1):
            prompt = prompts()[(2 + seed) % len(LENGTHS)]
            seqs.append(engine.submit(prompt, SamplingParams(seed=seed, entropy=True, **settings)))
            run_until_idle(engine)
        mine = []
        for _ in range(NEW):
            for seq in seqs:
                engine.resume(seq, [])
            while engine.has_work():
                events = engine.step()
                mine += [(e.tokens, e.entropies) for e in events if e.seq == seqs[0]]
        found.append(mine)
    assert len(found[0]) == NEW
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["gemma4_one_copy", "gemma4_wide", "gemma4_e2b"])
@pytest.mark.parametrize(
    ("offload", "kernels"), [(0, None), (50_000_000, None), (50_000_000, False)]
)
def test_random_operations(name: str, offload: int, kernels: bool | None) -> None:
    """The pools are far too small. Sampling is greedy, so that each token can be judged."""
    model = tiny_models.build(name).bfloat16()
    judge = Judge(model)
    config = EngineConfig(
        max_running=6, max_step_tokens=32, max_context=128, page_size=16, full_pages=14,
        sliding_pages=14, offload_bytes=offload, kernels=kernels,
    )  # fmt: skip
    engine = Engine(model.cuda(), config)
    generator = random.Random(offload + len(name))
    mirror: dict[int, list[int]] = {}  # tokens given and generated
    runs: dict[int, list[tuple[int, int]]] = {}  # begin and end of generated ones
    live: set[int] = set()
    paused: set[int] = set()
    for turn in range(600):
        draining = turn > 450
        if not draining and len(live) < 12 and generator.random() < 0.3:
            prompt = [generator.randrange(3, 128) for _ in range(generator.randrange(1, 60))]
            pauses = tuple(generator.sample(range(128), 20))
            seq = engine.submit(prompt, greedy(pause_token_ids=pauses, max_new_tokens=30))
            mirror[seq], runs[seq] = list(prompt), []
            live.add(seq)
        if live and generator.random() < 0.06:
            engine.cancel(generator.choice(sorted(live)))
        if paused and (draining or generator.random() < 0.5):
            seq = paused.pop()
            given = [generator.randrange(3, 128) for _ in range(generator.randrange(0, 6))]
            if len(mirror[seq]) + len(given) < 120 and engine.resume(seq, given):
                mirror[seq] += given
            else:
                engine.cancel(seq)
        for event in engine.step():
            if event.tokens:
                begin, generated = len(mirror[event.seq]), runs[event.seq]
                if generated and generated[-1][1] == begin:  # judged together
                    begin = generated.pop()[0]
                mirror[event.seq] += event.tokens
                generated.append((begin, len(mirror[event.seq])))
            if event.status == "paused":
                paused.add(event.seq)
            elif event.status == "finished":
                live.discard(event.seq)
                paused.discard(event.seq)
        engine.check()
    run_until_idle(engine)
    stats = engine.stats()
    assert stats["preempted"] + stats["reclaimed"] > 0, "the pools must be too small"
    for seq, tokens in mirror.items():
        for begin, end in runs[seq]:
            judge.check(tokens[:begin], tokens[begin:end])
    judge.close(f"{name}, random operations, offload {offload}, kernels {kernels}")


def test_without_kernels_the_table_leaves_room() -> None:
    engine = Engine(tiny_models.build("gemma4").bfloat16().cuda(), EngineConfig(kernels=False))
    path, *sizes, context = engine.table().splitlines()
    assert path == "path: plain, PyTorch's own kernels, because kernels is set to False"
    assert [line.split()[0] for line in sizes] == [
        "weights", "buffers", "largest", "KV", "CUDA", "left",
    ]  # fmt: skip
    assert engine.bytes_of["largest step"] > 0
    assert engine.bytes_of["left"] > 1 << 30
    assert int(context.split()[1]) >= 64 * 512


@pytest.mark.parametrize("kernels", [None, False])
def test_a_model_that_does_not_fit_is_refused(kernels: bool | None) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    room = torch.cuda.memory_reserved() + (8 << 20)  # the bundled model takes 24 MB
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.raises(ModelError, match=r"does not fit the GPU's memory|leaves no memory"):
            Engine(model_path(), EngineConfig(device="cuda", kernels=kernels))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_models_that_cap_scores_run_without_kernels() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(VARIANTS["gemma2_softcap"]())
    model = tiny_models.randomize(model).bfloat16()
    judge = Judge(model)
    for one in (judge.plain, judge.exact):
        one.set_attn_implementation("eager")  # the only one that caps scores
    config = EngineConfig(max_running=8, max_step_tokens=64, max_context=512, memory_fraction=0.01)
    engine = Engine(model.cuda(), config)
    assert engine.table()
    first = {engine.submit(prompt, greedy()): prompt for prompt in prompts()}
    for seq, generated in run_until_idle(engine).items():
        judge.check(first[seq], generated)
    judge.close("gemma2")


@pytest.mark.parametrize("kernels", [None, False])
def test_bundled_model(kernels: bool | None) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(model_path(), dtype="bfloat16")
    judge = Judge(model)
    config = EngineConfig(max_running=8, memory_fraction=0.05, kernels=kernels)
    engine = Engine(model.cuda(), config)
    generator = random.Random(1)
    asked = [[2] + [generator.randrange(200, 2048) for _ in range(400)] for _ in range(8)]
    first = {engine.submit(prompt, greedy(max_new_tokens=200)): prompt for prompt in asked}
    for seq, generated in run_until_idle(engine).items():
        judge.check(first[seq], generated)
    judge.close(f"bundled model, kernels {kernels}")
