"""Chat formats: how each family of checkpoints writes prompts, tool calls and final texts.

Importing this package imports neither torch nor transformers.
"""

from .chat_protocol import ChatProtocol, ProtocolError
from .format_registry import load_protocol, parse_calls

__all__ = ["ChatProtocol", "ProtocolError", "load_protocol", "parse_calls"]
