"""The training of the bundled model's drafter on tiny networks: what it sees; that it learns."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers.engine_cases.assistants import reference_drafts

from eightfold.demo.muon_optimizer import MuonWithAdam
from eightfold.demo.training_network import (
    Network,
    NetworkConfig,
    load_weights,
    save_configs,
    save_weights,
)
from eightfold.demo.training_rows import POSITIONS, SEGMENTS, TARGETS, TOKENS

pytestmark = pytest.mark.skipif(
    not hasattr(transformers, "Gemma4AssistantForCausalLM"),
    reason="this transformers has no Gemma 4 drafters",
)
VOCABULARY, LENGTH, PREFIX = 96, 40, 6
SIZES = NetworkConfig(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=4, pattern=2,
    num_attention_heads=4, head_dim=16, global_head_dim=32, sliding_window=8,
    max_position_embeddings=256,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = Network(SIZES)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2 and "embed" not in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    save_weights(network, tmp_path)
    save_configs(SIZES, tmp_path)
    return tmp_path


def make_row() -> torch.Tensor:
    """Return one row: a prefix and two traces of counting tokens, the last part trained on."""
    row = torch.zeros(1, 4, LENGTH, dtype=torch.int64)
    row[0, TOKENS] = torch.arange(LENGTH) * 7 % VOCABULARY
    row[0, SEGMENTS, PREFIX:] = 1
    row[0, SEGMENTS, 22:] = 2
    row[0, POSITIONS] = torch.arange(LENGTH)
    row[0, POSITIONS, 22:] = torch.arange(PREFIX, PREFIX + LENGTH - 22)
    row[0, TARGETS] = -1
    for begin, end in ((PREFIX + 2, 21), (24, LENGTH - 1)):
        row[0, TARGETS, begin:end] = row[0, TOKENS, begin + 1 : end + 1]
    return row


def load(folder: Path) -> Network:
    from eightfold.demo.drafter.drafter_network import read_network_config

    network = Network(read_network_config(folder))
    assert network.config == SIZES
    load_weights(network, folder)
    return network.eval().requires_grad_(False)


def test_guesses_are_those_that_the_engine_drafts(folder: Path) -> None:
    """Both traces: of the second, the prefix and its own tokens are all that the drafter sees."""
    from eightfold.demo.drafter.drafter_loss import guesses
    from eightfold.demo.drafter.drafter_network import new_drafter, target_states

    network, row = load(folder), make_row()
    drafter = new_drafter(json.loads((folder / "config.json").read_text())).eval()
    target = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    starts = torch.tensor([[PREFIX + 3, 18, 30]])
    states = target_states(network, row)
    with torch.no_grad():
        first = next(iter(guesses(drafter, network, row, states, starts)))
    assert first.valid.all()
    tokens = row[0, TOKENS].tolist()
    for index, start in enumerate(starts[0].tolist()):
        trace = tokens[: start + 1] if start < 22 else [*tokens[:PREFIX], *tokens[22 : start + 1]]
        wanted = reference_drafts(drafter, target, trace, 1)
        assert first.logs[0, index].argmax().item() == wanted[0]


def test_places_behind_which_nothing_is_trained_do_not_count(folder: Path) -> None:
    from eightfold.demo.drafter.drafter_loss import choose_starts, guesses
    from eightfold.demo.drafter.drafter_network import new_drafter, target_states

    network, row = load(folder), make_row()
    drafter = new_drafter(json.loads((folder / "config.json").read_text()))
    starts = torch.tensor([[19, 20, LENGTH - 1]])
    found = [
        g.valid[0].tolist()
        for g in guesses(drafter, network, row, target_states(network, row), starts)
    ]
    assert found[:3] == [[True, True, False], [True, False, False], [False] * 3]
    chosen = choose_starts(row, 64, torch.Generator().manual_seed(0))
    assert (row[0, TARGETS].gather(0, chosen[0]) >= 0).all()


def test_the_drafter_learns_and_fits_its_model(folder: Path) -> None:
    from eightfold.demo.drafter.drafter_network import new_drafter
    from eightfold.demo.drafter.train_drafter import MOST_PARAMETERS, GradientStep
    from eightfold.engine.inspection.architecture import inspect_architecture
    from eightfold.engine.speculation.mtp.assistant_checkpoint import read_assistant

    network, row = load(folder), make_row()
    table = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    drafter = new_drafter(table)
    assert sum(p.numel() for p in drafter.parameters()) < MOST_PARAMETERS
    starts = torch.tensor([[9, 12, 15, 25, 28, 31]])
    step, optimizer = GradientStep(drafter, network, row, starts), MuonWithAdam(drafter)
    first = step(row, starts)
    for _ in range(25):
        last = step(row, starts)
        optimizer.step(4e-3)
    assert last.loss < 0.5 * first.loss
    assert last.overlap[0] > first.overlap[0] + 0.1
    drafter.bfloat16().save_pretrained(folder / "drafter")
    target = transformers.AutoConfig.from_pretrained(folder)
    assert len(read_assistant(folder / "drafter", inspect_architecture(target)).sources) == 2


def test_the_drafter_in_the_package_fits_the_model_in_the_package() -> None:
    """Train it once more after each training of the model (``train_drafter``)."""
    from eightfold.demo import model_path
    from eightfold.demo.drafter.train_drafter import MOST_PARAMETERS
    from eightfold.engine.inspection.architecture import inspect_architecture
    from eightfold.engine.speculation.mtp.assistant_checkpoint import read_assistant

    if not (model_path() / "drafter").is_dir():
        pytest.skip("no drafter is bundled: the model was trained after it")
    target = transformers.AutoConfig.from_pretrained(model_path())
    checkpoint = read_assistant(model_path() / "drafter", inspect_architecture(target))
    loaded = checkpoint.load(torch.device("cpu"), torch.float32)
    assert loaded.nbytes < 4 * MOST_PARAMETERS
