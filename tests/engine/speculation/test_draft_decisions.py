"""How many drafts pay: costs, running acceptance, and the rest that a drafter takes in vain."""

import pytest
import torch

from eightfold.engine.sampling_params import SamplingParams
from eightfold.engine.scheduling.draft_tree import DraftTree
from eightfold.engine.scheduling.sequence import Sequence
from eightfold.engine.speculation.acceptance_rates import PRIOR_CHANCE, AcceptanceRates
from eightfold.engine.speculation.draft_budget import DraftBudget
from eightfold.engine.speculation.drafter import Draft
from eightfold.engine.speculation.mtp.draft_choice import DraftChoice
from eightfold.engine.speculation.ngram.ngram_drafter import NgramDrafter
from eightfold.engine.speculation.speculator import FIRST_REST, TRIES, Speculator
from eightfold.engine.speculation.step_costs import StepCosts

ROWS = (1, 2, 4, 8, 16, 32, 64)
FLAT = StepCosts({rows: 0.018 + 0.00001 * rows for rows in ROWS})  # a dense model on a GPU
STEEP = StepCosts({rows: 0.002 * rows for rows in ROWS})  # a CPU, or a mixture of experts


def test_costs_between_measured_rows_and_beyond() -> None:
    costs = StepCosts({1: 1.0, 2: 3.0, 4: 2.0, 8: 5.0})
    assert costs.seconds(2) == costs.seconds(4) == 2.0, "fewer rows are never dearer"
    assert costs.seconds(6) == pytest.approx(3.5)
    assert costs.seconds(16) == pytest.approx(10.0)
    assert costs.most_rows == 8


def test_a_disturbed_measurement_does_not_make_more_rows_look_free() -> None:
    costs = StepCosts({1: 0.05, 2: 0.006, 4: 0.008, 8: 0.012, 16: 0.018})
    assert costs.seconds(1) == costs.seconds(2) == 0.006
    chances = [[0.3, 0.2, 0.1]] * 2
    assert DraftBudget(costs, uniform=False).counts(chances, 0.0) == [0, 0]


@pytest.mark.parametrize("uniform", [False, True])
def test_flat_costs_take_drafts_and_steep_ones_none(uniform: bool) -> None:
    chances = [[0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2] for _ in range(8)]
    assert DraftBudget(FLAT, uniform).counts(chances, 0.0) == [7] * 8
    assert DraftBudget(STEEP, uniform).counts(chances, 0.0) == [0] * 8


@pytest.mark.parametrize("uniform", [False, True])
def test_overhead_and_small_chances_take_none(uniform: bool) -> None:
    budget = DraftBudget(FLAT, uniform)
    assert budget.counts([[0.001] * 3] * 8, 0.0) == [0] * 8
    assert budget.counts([[0.3]] * 8, 0.02) == [0] * 8
    assert budget.counts([[], []], 0.0) == [0, 0]


def test_only_likely_drafts_are_taken_where_rows_can_be_chosen_freely() -> None:
    costs = StepCosts({1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4})
    counts = DraftBudget(costs, uniform=False).counts([[0.95, 0.9], [0.1, 0.05]], 0.0)
    assert counts == [2, 0]


def test_uniform_rows_are_powers_of_two_within_the_largest_step() -> None:
    budget = DraftBudget(FLAT, uniform=True)
    chances = [[0.99] * 15 for _ in range(5)]  # padded to 8 sequences
    assert budget.counts(chances, 0.0) == [7] * 5
    assert budget.most_drafts(5) == 7
    assert budget.most_drafts(1) == 63
    assert budget.most_drafts(64) == 0


def test_chances_follow_what_comes_true() -> None:
    rates, line = AcceptanceRates(), Draft(DraftTree.line([1, 2, 3]))
    assert rates.chances(0, line)[0] == pytest.approx(PRIOR_CHANCE)
    for _ in range(60):
        rates.record(0, line.tree, sum(rates.raw_chances(line)), 3)
        rates.record(1, line.tree, sum(rates.raw_chances(line)), 0)
    good, bad = rates.chances(0, line), rates.chances(1, line)
    assert good[2] > 2 * bad[2]
    assert good == sorted(good, reverse=True)
    rates.forget(1)
    assert rates.chances(1, line)[2] > bad[2]


def test_promises_of_a_drafter_are_corrected() -> None:
    rates = AcceptanceRates()
    boastful = Draft(DraftTree.line([1, 2]), (0.9, 0.8))
    for _ in range(60):
        rates.record(0, boastful.tree, 1.7, 0)
    assert sum(rates.chances(0, boastful)) < 0.4
    assert rates.raw_chances(boastful) == [0.9, 0.8]


class VainDrafter:
    """Drafts what is never right."""

    name, branches, gives_chances = "vain", False, True

    def __init__(self) -> None:
        self.asked = self.observed = 0

    def draft(self, sequences: list[Sequence], count: int) -> list[Draft]:
        self.asked += 1
        return [Draft(DraftTree.line([0] * count), (0.01,) * count) for _ in sequences]

    def observe(self, sequences: list[Sequence]) -> None:
        self.observed += 1

    def forget(self, seq: Sequence) -> None:
        pass


def test_a_drafter_in_vain_rests_longer_and_longer() -> None:
    drafter = VainDrafter()
    speculator = Speculator(drafter, STEEP, 7, uniform=True)
    seqs = [Sequence(n, [1, 2], 1, SamplingParams(), frozenset()) for n in range(8)]
    rests = []
    for _ in range(4 * (TRIES + 8 * FIRST_REST)):
        drafts = speculator.propose(seqs, [100] * 8)
        assert not any(drafts)
        if not speculator.active and (not rests or rests[-1] < 0):
            rests.append(speculator._rest)
        elif speculator.active and rests and rests[-1] > 0:
            rests.append(-1)
        speculator.end_step(seqs, 0.0001)
    assert [rest for rest in rests if rest > 0][:3] == [64, 128, 256]
    assert drafter.asked < 40
    assert drafter.observed == 4 * (TRIES + 8 * FIRST_REST), "histories stay complete"


def test_more_sequences_than_a_step_with_drafts_has_rows_get_none() -> None:
    drafter = NgramDrafter()
    speculator = Speculator(drafter, None, 7, uniform=True)
    seqs = [Sequence(n, [1, 2] * 20, 1, SamplingParams(), frozenset()) for n in range(65)]
    drafter.observe(seqs)
    assert not any(speculator.propose(seqs, [100] * 65))
    assert any(speculator.propose(seqs[:8], [100] * 8))


def test_without_costs_every_draft_is_verified() -> None:
    speculator = Speculator(VainDrafter(), None, 3, uniform=True)
    seqs = [Sequence(0, [1, 2], 1, SamplingParams(), frozenset())]
    assert len(speculator.propose(seqs, [100])[0]) == 3
    assert not speculator.propose(seqs, [0])[0]
    many = [Sequence(n, [1, 2], 1, SamplingParams(), frozenset()) for n in range(64)]
    assert not any(speculator.propose(many, [100] * 64)), "graphs hold up to 64 rows"
    assert len(speculator.propose(many[:20], [100] * 20)[0]) == 1
    assert "always" in speculator.summary()
    assert "64 rows" in Speculator(VainDrafter(), FLAT, 3, uniform=True).summary()


def test_drafts_are_drawn_until_the_likeliest_tokens_do_better() -> None:
    choice = DraftChoice(torch.device("cpu"))
    drawn, likeliest, valid = torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([True, True])
    assert choice.choose(drawn, likeliest).tolist() == [1, 2]
    candidates = torch.stack([drawn, likeliest])
    for _ in range(5):
        choice.record(candidates, torch.tensor([3, 2]), valid)
    assert choice.choose(drawn, likeliest).tolist() == [1, 2]  # one each
    for _ in range(5):
        choice.record(candidates, torch.tensor([3, 4]), valid)
    assert choice.choose(drawn, likeliest).tolist() == [3, 4]
    for _ in range(200):
        choice.record(candidates, torch.tensor([1, 4]), torch.tensor([True, False]))
    assert choice.choose(drawn, likeliest).tolist() == [1, 2]
