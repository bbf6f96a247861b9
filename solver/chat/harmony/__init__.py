"""The Harmony format of gpt-oss: messages with headers, read from token ids."""
