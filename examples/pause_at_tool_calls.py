"""Drive the engine alone: sequences pause at a tool call and continue with their KV cache kept.

    python examples/pause_at_tool_calls.py

Four sequences share one prompt, whose KV pages are computed once. A sequence that writes a tool
call pauses; the code runs; the sequence resumes with the output, and only the new tokens are
computed. The other sequences go on meanwhile.
"""

from transformers import AutoTokenizer

from eightfold.demo import model_path
from eightfold.engine import Engine, EngineConfig, SamplingParams
from eightfold.sandbox import KernelPool, PoolConfig
from eightfold.solver.chat import load_protocol

PROBLEM = "What is the remainder when $5^{8985}$ is divided by 66?"
COUNT = 4


def main() -> None:
    protocol = load_protocol(AutoTokenizer.from_pretrained(model_path()))
    engine = Engine(model_path(), EngineConfig(max_running=COUNT, max_context=2048))
    params = SamplingParams(max_new_tokens=400, pause_token_ids=protocol.pause_token_ids)
    first = engine.submit(protocol.render_prompt(PROBLEM), params)
    sequences = [first, *engine.fork(first, COUNT - 1, seeds=range(1, COUNT))]
    written: dict[int, list[int]] = {sequence: [] for sequence in sequences}

    with KernelPool(PoolConfig(size=1)) as pool, pool.lease() as kernel:
        while engine.has_work():
            for event in engine.step():
                written[event.seq] += event.tokens
                if event.status != "paused":
                    continue
                text = protocol.decode(written[event.seq])
                written[event.seq] = []
                calls = protocol.parse_calls(text)
                if not calls:  # an end token: the turn is the final one
                    print(f"sequence {event.seq}: {protocol.final_text(text).strip()}")
                    engine.cancel(event.seq)
                    continue
                outputs = [kernel.execute(call.code).text for call in calls]
                print(f"sequence {event.seq} called Python: {outputs}")
                engine.resume(event.seq, protocol.tool_response(outputs))

    stats = engine.stats()
    print(f"{stats['sampled_tokens']} tokens sampled, {stats['recomputed_tokens']} recomputed")


if __name__ == "__main__":
    main()
