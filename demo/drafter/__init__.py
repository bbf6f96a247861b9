"""The bundled model's drafter, in the architecture of Gemma 4's: how it was trained.

Its weights lie in the sub-folder ``drafter`` of the bundled model's folder, where the engine looks
for them if `speculate` is "auto".
"""
