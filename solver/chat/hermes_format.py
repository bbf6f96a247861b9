"""The format of Qwen and Hermes checkpoints."""

from __future__ import annotations

import json
import re

from .chat_protocol import MARK, Framing, Protocol
from .tool_call import Call, MalformedCall, checked


class Hermes(Protocol):
    """Calls are `<tool_call>{json}</tool_call>` or its XML form; results are a new turn."""

    family = "hermes"
    _calls = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
    _tagged = re.compile(
        r"\s*<function=(?P<name>[^>]+)>\s*<parameter=code>\n?(?P<code>.*?)\n?</parameter>\s*</function>\s*",
        re.DOTALL,
    )

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        text = super().final_text(text)
        return [self._parse(match[1], bool(match[2])) for match in self._calls.finditer(text)]

    def _parse(self, body: str, closed: bool) -> Call | MalformedCall:
        if not closed:
            return MalformedCall("the call is not closed")
        if tagged := self._tagged.fullmatch(body):
            return self._named(tagged["name"], {"code": tagged["code"]})
        try:
            call = json.loads(body.strip(), strict=False)
            arguments = call["arguments"]
            if isinstance(arguments, str):
                arguments = json.loads(arguments, strict=False)
            return self._named(call["name"], arguments)
        except (ValueError, KeyError, TypeError, RecursionError):
            return MalformedCall('the call is not JSON with the keys "name" and "arguments"')

    def _named(self, name: object, arguments: object) -> Call | MalformedCall:
        if name != "python":
            return MalformedCall(f"there is no tool {str(name)[:40]}, only python")
        if not isinstance(arguments, dict) or not isinstance(arguments.get("code"), str):
            return MalformedCall("python takes one string argument named code")
        return checked(arguments["code"])

    def final_text(self, text: str) -> str:
        return self._calls.sub("", super().final_text(text))

    def _tool_framing(self) -> Framing:
        calls = [
            {
                "id": f"call{n:05d}",
                "type": "function",
                "function": {"name": "python", "arguments": {"code": "1"}},
            }
            for n in range(2)
        ]
        messages = [
            *self._messages("1"),
            {"role": "assistant", "content": "", "tool_calls": calls},
            *(
                {
                    "role": "tool",
                    "name": "python",
                    "tool_call_id": f"call{n:05d}",
                    "content": MARK + s,
                }
                for n, s in enumerate("AB")
            ),
        ]
        text = self._render(messages)
        return self._framing(text, "</tool_call>", [MARK + "A", MARK + "B"])
