"""Chat formats: how each checkpoint family writes prompts, tool calls and final texts."""

from .chat_protocol import Protocol, ProtocolError
from .protocol_choice import load_protocol, parse_calls

__all__ = ["Protocol", "ProtocolError", "load_protocol", "parse_calls"]
