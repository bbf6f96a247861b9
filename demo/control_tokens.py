"""The control tokens of the bundled model: those of Gemma 4 that it uses, at Gemma's ids."""

CONTROL_TOKENS = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
"""Texts by id."""

PAD, EOS, BOS = 0, 1, 2
TOOL_RESPONSE = 50
"""The model ends a tool call with it; generation pauses there."""

TURN, END_TURN = 105, 106

STOP_IDS = (EOS, TOOL_RESPONSE, END_TURN)
"""Tokens at which generation stops or pauses."""
