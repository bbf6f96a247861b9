"""A run as a log of Inspect AI: problems are samples, attempts are epochs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eightfold.common.valid_text import escape_surrogates

from ..evaluation.run_scores import Run, summarize
from ..solver_config import SolverError
from .attempt_messages import Message, attempt_messages

SCORER = "answer"


def write_inspect_log(run: Run, settings: dict[str, Any], out: Path) -> None:
    """Write a log that Inspect AI's viewer opens.

    Args:
        run: the records.
        settings: settings of the run, as in its run.json.
        out: the file; .eval or .json decides the form.

    Raises:
        SolverError: Inspect AI is not installed, or the file's name has another ending.
    """
    if find_spec("inspect_ai") is None:
        raise SolverError("The export to Inspect needs inspect-ai; install eightfold[inspect].")
    if out.suffix not in (".eval", ".json"):
        raise SolverError(f"The name of a log of Inspect ends in .eval or .json, not {out.name}.")
    from inspect_ai.log import write_eval_log

    write_eval_log(_eval_log(run, settings), str(out))


def _eval_log(run: Run, settings: dict[str, Any]) -> Any:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalPlan,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )
    from inspect_ai.model import ModelUsage

    summary = summarize(run, settings)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    model = f"eightfold/{Path(str(settings.get('model') or 'bundled')).name}"
    tokens = summary["tokens"]
    prompts = sum(len(problem.get("prompt", ())) * len(tries) for problem, tries in run)
    usage = ModelUsage(input_tokens=prompts, output_tokens=tokens, total_tokens=prompts + tokens)
    metrics = {
        name: EvalMetric(name=name, value=one["value"]) for name, one in summary["scores"].items()
    }
    samples = [_sample(problem, one, model) for problem, attempts in run for one in attempts]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=created,
            task="eightfold",
            dataset=EvalDataset(name=str(settings.get("problems", "")), samples=len(run)),
            model=model,
            config=EvalConfig(epochs=max((len(tries) for _, tries in run), default=1)),
        ),
        plan=EvalPlan(),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[EvalScore(name=SCORER, scorer=SCORER, metrics=metrics)],
        ),
        stats=EvalStats(started_at=created, completed_at=created, model_usage={model: usage}),
        samples=samples,
    )


def _sample(problem: dict[str, Any], attempt: dict[str, Any], model: str) -> Any:
    """Return an attempt as a sample; its number is its epoch."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    truth, answer = problem["truth"], attempt["answer"]
    messages = attempt_messages(problem["problem"], attempt["turns"])
    said = next((m["content"] for m in reversed(messages) if m["role"] == "assistant"), "")
    value = "N" if truth is None else "C" if answer == truth else "I"
    kinds = dict(Counter(attempt["error_kinds"]))
    score = Score(
        value=value,
        answer=None if answer is None else str(answer),
        explanation=f"{attempt['ending']}: {attempt['detail']}".rstrip(": "),
        metadata={"ending": attempt["ending"], "errors": kinds, "voted": problem["answer"]},
    )
    return EvalSample(
        # A zero byte would cut the sample's name in the log, so that all epochs had the same one;
        # half of a surrogate pair cannot be written.
        id=escape_surrogates(problem["id"].replace("\0", "\N{REPLACEMENT CHARACTER}")),
        epoch=attempt["attempt"] + 1,
        input=problem["problem"],
        target="" if truth is None else str(truth),
        messages=[_chat_message(message) for message in messages],
        output=ModelOutput.from_content(model, said),
        scores={SCORER: score},
        metadata={"family": problem["family"], "seconds": attempt["ended"]},
        total_time=attempt["ended"],
    )


def _chat_message(message: Message) -> Any:
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageUser,
        Content,
        ContentReasoning,
        ContentText,
    )
    from inspect_ai.tool import ToolCall

    if message["role"] == "user":
        return ChatMessageUser(content=message["content"])
    if message["role"] == "tool":
        return ChatMessageTool(
            content=message["content"],
            tool_call_id=message["tool_call_id"],
            function=message["name"],
        )
    calls = [
        ToolCall(
            id=call["id"],
            function=call["function"]["name"],
            arguments=call["function"]["arguments"],
        )
        for call in message.get("tool_calls", ())
    ]
    content: list[Content] = []
    if "reasoning_content" in message:
        content.append(ContentReasoning(reasoning=message["reasoning_content"]))
    content.append(ContentText(text=message["content"]))
    return ChatMessageAssistant(content=content, tool_calls=calls or None)
