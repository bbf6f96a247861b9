"""Hooks for what cells display: the value of the last expression, and calls of ``display()``."""

from __future__ import annotations

from typing import Any

from ipykernel.zmqshell import ZMQDisplayPublisher, ZMQShellDisplayHook

from .cell_streams import CurrentCell


class CellDisplayHook(ZMQShellDisplayHook):
    """Shows the value of the last expression as its ``repr``."""

    msg: dict[str, Any] | None

    def quiet(self) -> bool:
        """Return False: a semicolon at a cell's end does not hide the value."""
        return False

    def compute_format_data(self, result: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """Show the value and return its text for iopub."""
        text = CurrentCell.budget.charge_displayed(repr(result))
        CurrentCell.show(text)
        if CurrentCell.budget.exhausted:
            raise CurrentCell.budget.error()
        return {"text/plain": text}, {}

    def update_user_ns(self, result: Any) -> None:
        """Keep the value as ``_`` only."""
        self.shell.user_ns["_"] = result

    def fill_exec_result(self, result: Any) -> None:
        """Do nothing: nobody reads the result object, which would keep the value alive."""

    def log_output(self, format_dict: Any) -> None:
        """Do nothing: there is no log."""

    def finish_displayhook(self) -> None:
        """Send the value to iopub, after what was printed before it."""
        CurrentCell.stream.publish()
        if self.msg and self.msg["content"]["data"] and self.session:
            self.session.send(self.pub_socket, self.msg, ident=self.topic)
        self.msg = None


class CellPublisher(ZMQDisplayPublisher):
    """Shows what is passed to ``display()`` as plain text, within the cell's budget."""

    def _flush_streams(self) -> None:
        CurrentCell.stream.publish()

    def publish(self, data: Any, metadata: Any = None, **options: Any) -> None:
        """Show the plain text among `data`, and send it to iopub."""
        text = data.get("text/plain") if isinstance(data, dict) else None
        text = CurrentCell.budget.charge_displayed(text if isinstance(text, str) else "[no text]")
        CurrentCell.show(text)
        if CurrentCell.budget.exhausted:
            raise CurrentCell.budget.error()
        super().publish({"text/plain": text}, {}, **options)
