"""Random models that decide on tokens as trained ones do, and do not amplify rounding.

With random weights alone, scores of attention have a deviation of the root of the head's width
(norms of queries and keys have weights of 1, and Gemma 4 does not scale scores), so that each layer
all but picks one key; and the likeliest tokens of a nearly uniform distribution are drawn. Rounding
then grows from layer to layer until other tokens are drawn: no draft could be kept that a step of
another number of rows has recorded.
"""

import torch
import transformers
from torch import nn

BRANCH = 0.1  # weight of the norms behind attention and feed-forward blocks
PEAK = 0.16  # length of the head's rows, as a multiple of the embedding's


def calm_attention(model: transformers.PreTrainedModel) -> None:
    """Give scores of attention a deviation of one."""
    for name, parameter in model.named_parameters():
        if name.endswith("q_norm.weight"):
            parameter.data.fill_(parameter.shape[0] ** -0.5)


def decide_tokens(model: transformers.PreTrainedModel, peak: float = PEAK) -> None:
    """Make the model prefer one token after each, a random one, by far.

    The head becomes the embedding with its rows permuted, and what the layers add to the embedding
    of the newest token is made smaller than it. All weights are read and used as before.

    Args:
        model: a random Gemma 4 in bfloat16; its head is no longer tied.
        peak: length of the head's rows. At 0.16 the preferred token has a logit of about 10, others
            have a deviation of 0.16.
    """
    calm_attention(model)
    for name, parameter in model.named_parameters():
        if name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            parameter.data.fill_(BRANCH)
    embedding = model.get_input_embeddings().weight
    order = torch.randperm(embedding.shape[0], device=embedding.device)
    head = torch.empty_like(embedding)
    torch.index_select(embedding.data, 0, order, out=head)
    head.mul_(peak)
    model.lm_head.weight = nn.Parameter(head, requires_grad=False)
