"""What cells show: the last expression's value, and what they pass to ``display()``."""

from __future__ import annotations

from typing import Any

from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQShellDisplayHook

from .cell_streams import Cell


class CellDisplayHook(ZMQShellDisplayHook):
    """Echoes the last expression's value as its ``repr``."""

    msg: dict[str, Any] | None

    def quiet(self) -> bool:
        return False

    def compute_format_data(self, result: Any) -> tuple[dict[str, str], dict[str, Any]]:
        text = Cell.budget.charge(repr(result))
        Cell.show(text)
        if Cell.budget.exhausted:
            raise Cell.budget.error()
        return {"text/plain": text}, {}

    def update_user_ns(self, result: Any) -> None:
        self.shell.user_ns["_"] = result

    def fill_exec_result(self, result: Any) -> None:
        pass

    def log_output(self, format_dict: Any) -> None:
        pass

    def finish_displayhook(self) -> None:
        Cell.stream.publish()
        if self.msg and self.msg["content"]["data"] and self.session:
            self.session.send(self.pub_socket, self.msg, ident=self.topic)
        self.msg = None


class CellPublisher(ZMQDisplayPublisher):
    """``display()``: its plain text, within the cell's budget."""

    def _flush_streams(self) -> None:
        Cell.stream.publish()

    def publish(self, data: Any, metadata: Any = None, **options: Any) -> None:
        text = data.get("text/plain") if isinstance(data, dict) else None
        text = Cell.budget.charge(text if isinstance(text, str) else "[no text]")
        Cell.show(text)
        if Cell.budget.exhausted:
            raise Cell.budget.error()
        super().publish({"text/plain": text}, {}, **options)
