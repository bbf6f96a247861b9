"""Problems that the tiny gpt-oss model was trained to solve, with numbers that it never saw.

Families gain phrasings after the model was trained; these are of its own time.
"""

from __future__ import annotations

from random import Random

from eightfold.demo.families import FAMILIES, fill_slots
from eightfold.demo.problems import Problem, agreed_answer, draw_params

PHRASINGS = {
    "divisor_count": "How many positive divisors does {n} have?",
    "divisor_sum": "What is the sum of the positive divisors of {n}, including 1 and {n}?",
    "power_mod": "What is the remainder when ${a}^{{b}}$ is divided by {m}?",
    "inverse_mod": "What is the inverse of {a} modulo {m}, as an integer between 1 and {m}?",
    "power_sum_mod": "What is $\\sum_{i=1}^{{n}} i^{k}$ modulo {m}?",
    "digit_sum_of_power": "What is the sum of the digits of ${a}^{{b}}$?",
}


def known_problems(seed: int) -> list[Problem]:
    """Return a problem of each family that the model knows; another seed gives other numbers."""
    rng, found = Random(seed), []
    by_name = {family.name: family for family in FAMILIES}
    for name, phrasing in PHRASINGS.items():
        answer = None
        while answer is None:
            params = draw_params(by_name[name], rng, held_out=True)
            answer = agreed_answer(by_name[name], params)
        text = fill_slots(phrasing, params)
        found.append(Problem(f"{name}-{seed}", name, 0, text, answer))
    return found
