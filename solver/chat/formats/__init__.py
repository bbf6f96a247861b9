"""One module for each chat format; `chat/format_registry.py` lists them."""
