"""An HTTP server that speaks OpenAI's protocol, on the engine and on the whole solver."""
