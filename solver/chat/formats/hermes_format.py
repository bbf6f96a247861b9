"""The chat format of Qwen and Hermes checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..chat_protocol import MARK, ChatProtocol, Framing
from ..tool_call import Call, MalformedCall, checked_call


class HermesFormat(ChatProtocol):
    """Calls are JSON or XML in `<tool_call>...</tool_call>`; results come in a new turn."""

    family = "hermes"
    _call_block = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
    _xml_call = re.compile(
        r"\s*<function=(?P<name>[^>]+)>\s*<parameter=code>\n?(?P<code>.*?)\n?</parameter>\s*</function>\s*",
        re.DOTALL,
    )

    @classmethod
    def matches(cls, vocabulary: Mapping[str, int], template: str) -> bool:
        return "<tool_call>" in template

    def parse_calls(self, text: str) -> list[Call | MalformedCall]:
        text = super().final_text(text)
        return [
            self._parse_call(match[1], bool(match[2])) for match in self._call_block.finditer(text)
        ]

    def _parse_call(self, body: str, closed: bool) -> Call | MalformedCall:
        if not closed:
            return MalformedCall("the call is not closed")
        if xml := self._xml_call.fullmatch(body):
            return self._check_call(xml["name"], {"code": xml["code"]})
        try:
            call = json.loads(body.strip(), strict=False)
            arguments = call["arguments"]
            if isinstance(arguments, str):
                arguments = json.loads(arguments, strict=False)
            return self._check_call(call["name"], arguments)
        except (ValueError, KeyError, TypeError, RecursionError):
            return MalformedCall('the call is not JSON with the keys "name" and "arguments"')

    def _check_call(self, name: object, arguments: object) -> Call | MalformedCall:
        if name != "python":
            return MalformedCall(f"there is no tool {str(name)[:40]}, only python")
        if not isinstance(arguments, dict) or not isinstance(arguments.get("code"), str):
            return MalformedCall("python takes one string argument named code")
        return checked_call(arguments["code"])

    def final_text(self, text: str) -> str:
        return self._call_block.sub("", super().final_text(text))

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
                    "content": MARK + suffix,
                }
                for n, suffix in enumerate("AB")
            ),
        ]
        text = self._render(messages)
        return self._framing(text, "</tool_call>", [MARK + "A", MARK + "B"])
