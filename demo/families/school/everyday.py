"""Everyday questions: units of units, coins, months, ages in proportion, prices that change twice."""

from __future__ import annotations

from random import Random

from ..family import Params, family

_CHAINS = (
    ("seconds", "hour", "60 * 60"), ("seconds", "day", "24 * 60 * 60"), ("minutes", "day", "24 * 60"),
    ("hours", "week", "7 * 24"), ("minutes", "week", "7 * 24 * 60"), ("days", "year", "365"),
    ("hours", "year", "365 * 24"), ("weeks", "year", "52"), ("minutes", "hour", "60"),
    ("seconds", "minute", "60"), ("hours", "day", "24"), ("days", "week", "7"), ("months", "year", "12"),
    ("centimeters", "kilometer", "1000 * 100"), ("millimeters", "meter", "1000"), ("years", "century", "100"),
    ("inches", "yard", "3 * 12"), ("cents", "dollar", "100"), ("degrees", "circle", "360"), ("grams", "kilogram", "1000"),
    ("months", "decade", "10 * 12"), ("meters", "kilometer", "1000"), ("days", "leap year", "366"),
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def _chain(r: Random) -> Params | None:
    small, big, code = r.choice(_CHAINS)
    n = 1 if r.random() < 0.6 else r.randint(2, 40)
    if n == 1:
        amount = f"{'an' if big == 'hour' else 'a'} {big}" if r.random() < 0.7 else f"one {big}"
    else:
        amount = f"{n} {big[:-1] + 'ie' if big.endswith('y') and big != 'day' else big}s"
        code = f"{n} * {code}"
    return {"small": small, "amount": amount, "code": code}


def _month(r: Random) -> Params:
    i = r.choice((*range(12), 1, 1))
    return {"month": _MONTHS[i], "y": r.randint(1900, 2100), "i": i + 1}


def _coins(r: Random) -> Params:
    kinds = r.sample(
        (("pennies", 1), ("nickels", 5), ("dimes", 10), ("quarters", 25), ("half dollars", 50)),
        r.randint(2, 4),
    )
    counts = [r.randint(2, 30) for _ in kinds]
    parts = [f"{n} {name}" for n, (name, _) in zip(counts, kinds, strict=True)]
    code = " + ".join(f"{n} * {value}" for n, (_, value) in zip(counts, kinds, strict=True))
    return {"coins": ", ".join(parts[:-1]) + " and " + parts[-1], "code": code}


def _older(r: Random) -> Params:
    k, young = r.randint(2, 6), r.randint(2, 30)
    word = {2: "twice", 3: "three times", 4: "four times", 5: "five times", 6: "six times"}[k]
    ask = r.choice(("older", "younger"))
    return {
        "k": k,
        "word": word,
        "s": young * (k + 1),
        "ask": ask,
        "code": f" * {k}" if ask == "older" else "",
    }


def _two_changes(r: Random) -> Params | None:
    p, q = r.choice((5, 10, 20, 25, 30, 40, 50)), r.choice((5, 10, 20, 25, 30, 40, 50))
    n = r.choice((100, 200, 400, 500, 800, 1000, 2000, 40, 80, 120, 160, 600))
    first, second = r.choice(
        (("rises", "falls"), ("falls", "rises"), ("rises", "rises"), ("falls", "falls"))
    )
    a, b = 100 + p * (1 if first == "rises" else -1), 100 + q * (1 if second == "rises" else -1)
    if n * a * b % 10_000:
        return None
    return {"n": n, "p": p, "q": q, "first": first, "second": second, "a": a, "b": b}


def _compound(r: Random) -> Params | None:
    p, t = r.choice((5, 10, 20, 50, 100)), r.randint(2, 4)
    n = r.choice((100, 200, 400, 500, 800, 1000, 2000, 5000, 8000, 10_000))
    value = n * (100 + p) ** t
    return {"n": n, "p": p, "t": t} if value % 100**t == 0 and value // 100**t < 100_000 else None


FAMILIES = (
    family(
        "units_in_unit",
        _chain,
        [
            "How many {small} are [there |]in {amount}?",
            "How many {small} does {amount} have?",
            "[Find|What is|Give] the number of {small} in {amount}[?|.]",
            "{amount} [has|is|equals|consists of] how many {small}?",
            "{amount} in {small}[?|:|]",
            "[Convert|Express] {amount} [to|in] {small}.",
            "[Tell me|I want to know] how many {small} [are in|make up|there are in] {amount}.",
            "Of how many {small} does {amount} consist?",
        ],
        ["{amount}: {code} {small}.", "{code}."],
        ["print({code})"],
    ),
    family(
        "days_of_month",
        _month,
        [
            "How many days [are [there |]in|does|has] {month} {y}[ have|]?".replace(
                "[are [there |]in|does|has] {month} {y}[ have|]", "are in {month} {y}"
            ),
            "How many days does {month} [of |]{y} have?",
            "How many days are there in {month}, {y}?",
            "[What is|Find] the number of days in {month} {y}[?|.]",
            "In the year {y}, how [long is {month} in days|many days has {month}]?",
        ],
        ["calendar.monthrange({y}, {i}).", "Days of month {i} in {y}."],
        ["import calendar\nprint(calendar.monthrange({y}, {i})[1])"],
    ),
    family(
        "days_of_year",
        lambda r: {"y": r.randint(1800, 2200)},
        [
            "How many days [are there in|has] [the year |]{y}?",
            "How many days does [the year |]{y} have?",
            "[What is|Find] the number of days in [the year |]{y}[?|.]",
            "How long, in days, [is|was] the year {y}?",
        ],
        ["366 if {y} is a leap year, else 365.", "calendar.isleap({y})."],
        [
            "import calendar\nprint(366 if calendar.isleap({y}) else 365)",
            "y = {y}\nleap = y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)\nprint(365 + leap)",
        ],
    ),
    family(
        "value_of_coins",
        _coins,
        [
            "How many cents are {coins}[ worth|]?",
            "{who} has {coins}. How [many cents|much money in cents] [is that|does {he} have]?",
            "[What is|Find] the value of {coins} in cents[?|.]",
            "[In a {box} there are|A {box} holds] {coins}. What is their total value in cents?",
            "Counted in cents, what do {coins} come to?",
        ],
        ["{code} cents.", "In cents: {code}."],
        ["print({code})"],
    ),
    family(
        "ages_in_proportion",
        _older,
        [
            "{who} is {word} as old as {who2}. Together they are {s}[ years old|]. How old is the {ask}[ one|]?",
            "The [sum of the ages of|ages of] {who} and {who2} [is|add up to] {s}, and {who} is {word} as old. [What is the age of|How old is] the {ask}?".replace(
                "[sum of the ages of|ages of] {who} and {who2} [is|add up to]",
                "ages of {who} and {who2} add up to",
            ),
            "[One number is|A number is] {word} another, and their sum is {s}. [Find|What is] the {ask}, that is, the [larger or smaller|matching] one[?|.]".replace(
                "[Find|What is] the {ask}, that is, the [larger or smaller|matching] one[?|.]",
                "If these are ages, how old is the {ask} one?",
            ),
            "A [mother|father] is {word} as old as [her|the] child; together they are {s}. How old is the {ask} of them?",
            "{s} years is the total age of two people, of whom one is {word} the age of the other. What is the {ask} one's age?",
        ],
        ["{k} + 1 parts make {s}.", "One part is {s} / ({k} + 1)."],
        ["print({s} // ({k} + 1){code})", "part = {s} // ({k} + 1)\nprint(part{code})"],
    ),
    family(
        "two_changes_of_price",
        _two_changes,
        [
            "A price of {n} {money} first {first} by {p}[%| percent] and then {second} by {q}[%| percent]. What is it [then|now|at the end]?",
            "[The price of a {item}|A share|A rent] is {n}. It {first} by {p}% and afterwards {second} by {q}%. [What is the final price|How much is it now]?",
            "Something costs {n} {money}. The price {first} by {p} percent, then it {second} by {q} percent. [Find|What is] the new price[?|.]",
            "From {n}, a value {first} {p}% in the first year and {second} {q}% in the second. Where does it end?",
        ],
        ["{n} * {a}/100 * {b}/100.", "Factors {a} % and {b} %."],
        ["print({n} * {a} * {b} // 10000)"],
    ),
    family(
        "compound_interest",
        _compound,
        [
            "{who} [puts|deposits|invests] {n} {money} at {p}[%| percent] [interest |][a year|per year|annually], compounded [yearly|annually]. How much [is it|does {he} have] after {t} years?",
            "[An amount|A sum] of {n} grows by {p}[%| percent] each year. [What is it|How much is it] after {t} years?",
            "A [town|population] of {n} grows {p} percent [a|every|per] year. How large is it after {t} years?",
            "[Find|What is] the value of {n} {money} after {t} years at {p}% compound interest[?|.]",
            "Every year a value of {n} is raised by {p}% of what it is then. What is it {t} years later?",
        ],
        ["{n} * (100 + {p})**{t} / 100**{t}.", "{t} times plus {p} percent."],
        [
            "print({n} * (100 + {p})**{t} // 100**{t})",
            "x = {n}\nfor _ in range({t}):\n    x += x * {p} / 100\nprint(round(x))",
        ],
    ),
    family(
        "simple_interest",
        lambda r: {"n": 100 * r.randint(1, 80), "p": r.randint(1, 15), "t": r.randint(1, 12)},
        [
            "[What is|Find] the simple interest on {n} {money} at {p}[%| percent] [a year|per year] for {t} years[?|.]",
            "{who} lends {n} {money} at {p}% simple interest [per year|a year]. How much interest [is due|does {he} get] after {t} years?",
            "How much interest do {n} {money} bring in {t} years at a simple rate of {p} percent per year?",
            "At {p}% a year without compounding, what interest do {n} {money} earn in {t} years?",
        ],
        ["{n} * {p} * {t} / 100.", "Simple interest: {n} * {p} / 100 each year."],
        ["print({n} * {p} * {t} // 100)"],
    ),
)
