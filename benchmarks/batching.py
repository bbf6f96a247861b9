"""Batching throughput with tool pauses: our engine against transformers' three ways.

Eight sequences sample at temperature 1 until each has its tokens. Every token of a random subset of
the vocabulary is a "tool call": there a sequence pauses and a tool's answer of random tokens is
appended. All contestants run the same weights, prompts, pause tokens and answers, each after a
short run to warm up; what they draw differs, as their noise does, and so do the places of their
pauses (their number stands in the notes).

    python benchmarks/batching.py [--model DIR] [--device cuda] [--new 100] [--shared]

With --shared the eight are attempts at one problem, as in `solve`: they have one prompt, which the
engine computes once and forks. Else each has a prompt of its own.

- engine: all sequences together; a paused one goes on at the next step.
- one by one: `generate` for each sequence in turn, its cache kept across pauses.
- padded: `generate` on all that are left, restarted from the padded start when all have paused.
- continuous: transformers' `generate_batch`, where it runs, resubmitting at each pause to the
  manager that its run to warm up has made.

"In vain" counts tokens that went through the model though their KV had been computed before, or
as padding. The limit: on a GPU, weights read once a step at the read bandwidth measured in the same
run; on a CPU, one forward pass a step of eight rows without context through the bare model. The
engine runs first, in a model of its own, and is gone before the others begin. Each line comes as
its contestant ends; one that takes longer than --limit seconds is cut off and has no figure.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from eightfold.engine import Engine, EngineConfig, SamplingParams

SEQUENCES = 8
ANSWER = 20
WARM_UP = 16


@dataclass
class Result:
    """One contestant: tokens drawn, seconds, tokens computed in vain."""

    name: str
    tokens: int
    seconds: float
    vain: int
    note: str = ""

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class Workload:
    """Prompts, the tokens that pause, answers by (sequence, turn), tokens to draw."""

    prompts: list[list[int]]
    pauses: tuple[int, ...]
    vocabulary: int
    new: int

    @property
    def shared(self) -> bool:
        """Whether all are attempts at one prompt."""
        return self.prompts[0] == self.prompts[1]

    @property
    def warm_up(self) -> list[list[int]]:
        """Prompts of the same tokens, which begin otherwise: none is in a prefix cache later."""
        return [prompt[::-1] for prompt in self.prompts]

    def answer(self, index: int, turn: int) -> list[int]:
        source = random.Random(index * 1000 + turn)
        return [source.randrange(3, self.vocabulary) for _ in range(ANSWER)]


def make_workload(
    vocabulary: int, prompt: int, new: int, share: float, shared: bool = False
) -> Workload:
    source = random.Random(0)
    prompts = [
        [source.randrange(3, vocabulary) for _ in range(prompt + 5 * i)] for i in range(SEQUENCES)
    ]
    if shared:
        prompts = [prompts[0]] * SEQUENCES
    pauses = tuple(source.sample(range(3, vocabulary), max(1, int(share * vocabulary))))
    return Workload(prompts, pauses, vocabulary, new)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread where what is within takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(name: str, run: Callable[..., Result], limit: float, *arguments: object) -> Result:
    """The contestant's result; one without a rate and with the reason where it does not run."""
    try:
        with at_most(limit):
            return run(*arguments)
    except TimeoutError:
        return Result(name, 0, 0.0, 0, f"cut off after {limit:g} s")
    except Exception as error:  # whatever transformers meets
        lines = str(error).strip().splitlines() or [""]
        return Result(name, 0, 0.0, 0, f"does not run: {type(error).__name__}: {lines[0][:80]}")


def run_engine(model: PreTrainedModel, work: Workload) -> Result:
    engine = Engine(model, EngineConfig(max_running=SEQUENCES, max_step_tokens=256))
    for prompt in work.warm_up:
        engine.submit(prompt, SamplingParams(max_new_tokens=WARM_UP, stop_token_ids=()))
    while engine.has_work():
        engine.step()
    before = engine.stats()
    start = time.perf_counter()
    turns, drawn = [0] * SEQUENCES, [0] * SEQUENCES
    params = SamplingParams(max_new_tokens=work.new, pause_token_ids=work.pauses, stop_token_ids=())
    if work.shared:
        seq = engine.submit(work.prompts[0], params)
        seqs = [seq, *engine.fork(seq, SEQUENCES - 1, list(range(1, SEQUENCES)))]
    else:
        each = [replace(params, seed=index) for index in range(SEQUENCES)]
        seqs = [engine.submit(*pair) for pair in zip(work.prompts, each, strict=True)]
    indices = {seq: index for index, seq in enumerate(seqs)}
    while engine.has_work():
        for event in engine.step():
            index = indices[event.seq]
            drawn[index] += len(event.tokens)
            if event.status == "paused":
                engine.resume(event.seq, work.answer(index, turns[index]))
                turns[index] += 1
    seconds = time.perf_counter() - start
    vain = engine.stats()["recomputed_tokens"] - before["recomputed_tokens"]
    return Result("engine", sum(drawn), seconds, vain, f"{sum(turns)} pauses")


def run_one_by_one(model: PreTrainedModel, work: Workload) -> Result:
    start, drawn, pauses = time.perf_counter(), 0, 0
    for index, prompt in enumerate(work.prompts):
        torch.manual_seed(index)
        ids, left, turn, cache = list(prompt), work.new, 0, None
        while left:
            out = model.generate(
                torch.tensor([ids], device=model.device),
                past_key_values=cache,
                return_dict_in_generate=True,
                **_settings(work, left),
            )
            cache = out.past_key_values
            left -= out.sequences.shape[1] - len(ids)
            ids = out.sequences[0].tolist()
            if left:
                ids += work.answer(index, turn)
                turn += 1
        drawn += work.new
        pauses += turn
    return Result("one by one", drawn, time.perf_counter() - start, 0, f"{pauses} pauses")


def run_padded(model: PreTrainedModel, work: Workload) -> Result:
    torch.manual_seed(0)
    start, vain, pauses = time.perf_counter(), 0, 0
    rows = {index: list(prompt) for index, prompt in enumerate(work.prompts)}
    left = dict.fromkeys(rows, work.new)
    turns = dict.fromkeys(rows, 0)
    known = dict.fromkeys(rows, 0)
    while rows:
        width = max(len(ids) for ids in rows.values())
        padded = [[0] * (width - len(ids)) + ids for ids in rows.values()]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in rows.values()]
        out = model.generate(
            torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            **_settings(work, min(left[index] for index in rows)),
        )
        for row, index in enumerate(list(rows)):
            new = out[row, width:].tolist()
            stop = next((i + 1 for i, token in enumerate(new) if token in work.pauses), len(new))
            vain += known[index] + (width - len(rows[index])) + len(new) - stop
            rows[index] += new[:stop]
            left[index] -= stop
            known[index] = len(rows[index]) - 1
            if not left[index]:
                del rows[index]
            elif rows[index][-1] in work.pauses:
                rows[index] += work.answer(index, turns[index])
                turns[index] += 1
                pauses += 1
    drawn = SEQUENCES * work.new
    return Result("padded", drawn, time.perf_counter() - start, vain, f"{pauses} pauses")


def run_continuous(model: PreTrainedModel, work: Workload) -> Result:
    from transformers import GenerationConfig

    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        settings = GenerationConfig(**_settings(work, new))
        outputs = model.generate_batch(
            prompts, generation_config=settings, persistent_manager=True
        ).values()
        answers = [output.generated_tokens for output in outputs]
        if len(answers) != len(prompts) or not all(answers):
            raise RuntimeError("it returned no tokens")
        return answers

    generate(work.warm_up, min(WARM_UP, work.new))
    start, vain = time.perf_counter(), 0
    rows = {index: list(prompt) for index, prompt in enumerate(work.prompts)}
    left = dict.fromkeys(rows, work.new)
    turns = dict.fromkeys(rows, 0)
    while rows:
        answers = generate(list(rows.values()), min(left[i] for i in rows))
        for index, new in zip(list(rows), answers, strict=True):
            vain += len(rows[index]) - 1 if turns[index] else 0
            rows[index] += new
            left[index] -= len(new)
            if left[index] <= 0:
                del rows[index]
                continue
            rows[index] += work.answer(index, turns[index])
            turns[index] += 1
    return Result("continuous", SEQUENCES * work.new, time.perf_counter() - start, vain)


def _settings(work: Workload, new: int) -> dict:
    return {
        "max_new_tokens": new,
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "eos_token_id": list(work.pauses),
        "pad_token_id": 0,
    }


def load(folder: str, device: str, dtype: str) -> PreTrainedModel:
    """The model, on the device, in float32 on a CPU unless a type is named."""
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def free_memory() -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def warm_up(model: PreTrainedModel, work: Workload) -> None:
    """transformers' first `generate` does what later ones need not."""
    prompts = work.warm_up
    width = min(len(prompt) for prompt in prompts)
    for rows in (prompts[:1], [prompt[:width] for prompt in prompts]):
        ids = torch.tensor(rows, device=model.device)
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, **_settings(replace(work, pauses=()), WARM_UP))


def limit(model: PreTrainedModel) -> float:
    """Tokens per second that no engine can exceed (see above)."""
    if model.device.type == "cpu":
        return SEQUENCES / bare_step(model)
    from support.read_bandwidth import read_bandwidth

    weights = {tensor.data_ptr(): tensor.nbytes for tensor in model.parameters()}
    if not model.config.get_text_config().tie_word_embeddings:
        weights.pop(model.get_input_embeddings().weight.data_ptr())  # a few rows of it are read
    return SEQUENCES * read_bandwidth(model.device) / sum(weights.values())


@torch.inference_mode()
def bare_step(model: PreTrainedModel, repeats: int = 40) -> float:
    """Seconds of one forward pass of eight rows without context, the best of ``repeats``."""
    ids = torch.ones(SEQUENCES, 1, dtype=torch.long, device=model.device)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model(input_ids=ids, use_cache=False).logits.argmax(-1).tolist()
        times.append(time.perf_counter() - start)
    return min(times)


def run_all(arguments: argparse.Namespace) -> tuple[list[Result], float, Workload]:
    """Results, the engine's first, each printed as it comes; the limit; what was run."""
    model = load(arguments.model, arguments.device, arguments.dtype)
    work = make_workload(
        model.get_input_embeddings().num_embeddings,
        *(arguments.prompt, arguments.new, arguments.pauses, arguments.shared),
    )
    most = limit(model)
    free_memory()
    results: list[Result] = []

    def run(name: str, contestant: Callable[..., Result]) -> None:
        result = timed(name, contestant, arguments.limit, model, work)
        results.append(result)
        share = f"{result.rate / most:8.0%}"
        line = f"{result.name:12} {result.rate:8.1f} {share:>9} {result.vain:8}  {result.note}"
        print(line, flush=True)

    print(f"{'':12} {'tok/s':>8} {'of limit':>9} {'in vain':>8}  note", flush=True)
    run("engine", run_engine)
    del model
    free_memory()  # the engine's pools take all that a GPU has
    model = load(arguments.model, arguments.device, arguments.dtype)
    warm_up(model, work)
    run("one by one", run_one_by_one)
    run("padded", run_padded)
    run("continuous", run_continuous)  # last: it changes the model's attention
    return results, most, work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="model folder; the bundled model unless given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="the checkpoint's, on a CPU float32")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1 is what solve takes")
    parser.add_argument("--new", type=int, default=100, help="tokens each sequence draws")
    parser.add_argument("--prompt", type=int, default=150, help="tokens of the shortest prompt")
    parser.add_argument("--pauses", type=float, default=0.02, help="share of tokens that pause")
    parser.add_argument("--shared", action="store_true", help="one prompt for all, forked")
    parser.add_argument("--limit", type=float, default=60, help="seconds for each contestant")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.model is None:
        from eightfold.demo import model_path

        arguments.model = str(model_path())
    results, most, work = run_all(arguments)
    on_cpu = arguments.device == "cpu"
    what = "a bare forward pass a step" if on_cpu else "weights read once a step"
    print(f"{'limit':12} {most:8.1f}                     {what}")
    ratio = results[0].rate / results[1].rate if results[1].rate else None
    print(
        json.dumps(
            {
                "benchmark": "batching",
                "device": arguments.device,
                "sequences": SEQUENCES,
                "threads": arguments.threads,
                "shared_prompt": arguments.shared,
                "prompt_tokens": sum(len(prompt) for prompt in work.prompts),
                "new_tokens": arguments.new,
                "limit": what,
                "limit_tokens_per_second": round(most, 1),
                "ratio_to_one_by_one": None if ratio is None else round(ratio, 2),
                **{
                    result.name.replace(" ", "_"): {
                        "tokens_per_second": round(result.rate, 1),
                        "seconds": round(result.seconds, 3),
                        "tokens_in_vain": result.vain,
                        "note": result.note,
                    }
                    for result in results
                },
            }
        )
    )


if __name__ == "__main__":
    main()
