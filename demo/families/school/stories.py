"""Word problems about what people buy, share, collect and give away, in one to four steps."""

from __future__ import annotations

from random import Random

from ..family import ANSWERS, Params, family, number

_MORE = (
    "{He} [gets|finds|buys|receives|collects|earns|is given] {0} more[ {items}|].",
    "Then {he} [gets|buys|finds|wins] another {0}[ {items}|].",
    "{who2} gives {him} {0}[ more|] {items}.", "After that {he} [buys|picks] {0} {items}.",
    "[Later|The next day|On {day}] {he} [gets|adds|finds] {0} {items}.",
    "{His} [mother|father|aunt|friend] gives {him} {0} {items}.",
)  # fmt: skip
_LESS = (
    "{He} [gives|sells|hands] {0}[ of them| {items}|] to {who2}.",
    "Then {he} [loses|uses|breaks|eats or loses|sells|gives away] {0}[ of them| {items}|].",
    "{0}[ of them| {items}|] [get lost|break|are sold|are stolen|are given away].",
    "[Later|The next day|On {day}] {he} [sells|loses|uses up|gives away] {0}[ {items}|].",
    "{who2} takes {0}[ of them|].", "{He} throws away {0} of the {items}.",
)  # fmt: skip
_DOUBLE = (
    "Then the number [doubles|of {items} doubles].", "{He} doubles the number of {items}.",
    "{who2} gives {him} as many {items} as {he} already has.",
)  # fmt: skip
_HALVE = (
    "{He} gives half of [them|the {items}] to {who2}.", "Then {he} [loses|sells|uses] half of [them|the {items}].",
    "Half of [them|the {items}] [break|are sold|get lost].",
)  # fmt: skip
_START = (
    "{who} <has> {0} {items}.", "{who} [has|had] {0} {items} [at first|in the beginning|in a {box}|to start with].",
    "At [first|the start] {who} has {0} {items}.", "There are {0} {items} in {who}'s {box}.",
    "{who} [collected|bought|made|found] {0} {items}.",
)  # fmt: skip


def _chain(r: Random) -> Params | None:
    """Draw a story of two to four events; None if a number in it is not a whole one."""
    value = number(r, 2, 500)
    code = str(value)
    text = [r.choice(_START).replace("{0}", code)]
    last = ""
    for _ in range(r.randint(1, 4)):
        kind = r.choice("++++----dh")
        amount = number(r, 1, 300)
        if kind == "+":
            words, code, value = r.choice(_MORE), f"{code} + {amount}", value + amount
        elif kind == "-":
            if amount > value:
                return None
            words, code, value = r.choice(_LESS), f"{code} - {amount}", value - amount
        elif kind == "d":
            words, value = r.choice(_DOUBLE), value * 2
            code = f"({code}) * 2" if not code.isdecimal() else f"{code} * 2"
        else:
            if value % 2 or kind == last:
                return None
            words, value = r.choice(_HALVE), value // 2
            code = f"({code}) // 2" if not code.isdecimal() else f"{code} // 2"
        last = kind
        text.append(words.replace("{0}", str(amount)))
    if value not in ANSWERS:
        return None
    joined = " ".join(text)
    return {"story": joined, "code": code}


def _compare(r: Random) -> Params | None:
    a, k = number(r, 2, 500), number(r, 1, 300)
    how = r.choice(("more", "fewer", "times"))
    if how == "times":
        k = r.randint(2, 12)
    if how == "fewer" and k >= a:
        return None
    other = {"more": f"{a} + {k}", "fewer": f"{a} - {k}", "times": f"{a} * {k}"}[how]
    words = {
        "more": "{k} more {items} than", "fewer": "{k} fewer {items} than", "times": "{k} times as many {items} as",
    }[how].replace("{k}", str(k))  # fmt: skip
    return {"a": a, "words": words, "other": other}


def _shopping(r: Random) -> Params:
    return {
        "a": r.randint(2, 20),
        "p": r.randint(1, 60),
        "b": r.randint(2, 20),
        "q": r.randint(1, 60),
    }


def _change(r: Random) -> Params | None:
    a, p = r.randint(2, 20), r.randint(1, 40)
    paid = r.choice((5, 10, 20, 50, 100, 200, 500, 1000))
    return {"a": a, "p": p, "m": paid} if a * p <= paid else None


def _tickets(r: Random) -> Params:
    return {
        "a": r.randint(1, 300),
        "p": r.randint(3, 40),
        "c": r.randint(1, 300),
        "q": r.randint(1, 30),
    }


def _saving(r: Random) -> Params | None:
    w, goal, start = r.randint(2, 60), number(r, 30, 2_000), r.choice((0, number(r, 1, 200)))
    return {"w": w, "g": goal, "s": start} if goal > start else None


def _legs(r: Random) -> Params:
    pairs = r.choice(
        (("chickens", 2, "cows", 4), ("ducks", 2, "sheep", 4), ("bicycles", 2, "cars", 4),
         ("hens", 2, "rabbits", 4), ("tricycles", 3, "bicycles", 2), ("spiders", 8, "ants", 6))
    )  # fmt: skip
    part = "wheels" if "cycles" in pairs[0] else "legs"
    return {
        "x": pairs[0],
        "k": pairs[1],
        "y": pairs[2],
        "l": pairs[3],
        "a": number(r, 1, 99),
        "b": number(r, 1, 99),
        "part": part,
    }


def _heads(r: Random) -> Params:
    made = _legs(r)
    a, b, k, n = int(made["a"]), int(made["b"]), int(made["k"]), int(made["l"])
    ask = r.choice((0, 1))
    return {
        **made,
        "h": a + b,
        "g": k * a + n * b,
        "ask": made["y" if ask else "x"],
        "code": "h - a" if ask else "a",
    }


FAMILIES = (
    family(
        "story_chain",
        _chain,
        [
            "{story} How many {items} [does {who} have <now>|does {he} have <now>|are left|are there <now>]?",
            "{story} How many {items} are [there|in {his} possession|now {his}]?",
            "{story} [What is the number of {items} {he} has <now>|Find the number of {items} {who} has <now>].",
            "[Here is a story.|Listen.|] {story} [Calculate how many {items} {who} ends up with|How many {items} does {who} end up with]?",
            "{story} With how many {items} does {who} finish?",
        ],
        ["Step by step: {code}.", "The story gives {code}.", "{code}."],
        ["print({code})", "items = {code}\nprint(items)"],
    ),
    family(
        "compare_and_total",
        _compare,
        [
            "{who} has {a} {items}. {who2} has {words} {who}. How many {items} do they have [together|in total|altogether]?",
            "{who} [collected|sold|found] {a} {items} and {who2} [collected|sold|found] {words} {who}. How many [did they [collect|sell|find]|is that] [together|in all]?",
            "{who2} has {words} {who}, who has {a}. What is the total[ number| of their {items}|]?",
            "[There are|A shop has] {a} {items} in the first {box}. The second {box} has {words} the first. How many {items} are there in both [{boxes}|together]?",
            "If {who} owns {a} {items}, and {who2} owns {words} {who}, find the number they own jointly.",
        ],
        ["The other one has {other}; add {a}.", "{a} + ({other})."],
        ["print({a} + ({other}))", "first = {a}\nsecond = {other}\nprint(first + second)"],
    ),
    family(
        "compare_other",
        _compare,
        [
            "{who} has {a} {items}. {who2} has {words} {who}. How many {items} does {who2} have?",
            "{who2} has {words} {who}. {who} has {a}[ {items}|]. How many does {who2} have?",
            "In the first {box} there are {a} {items}; the second {box} has {words} the first. How many are in the second[ {box}|]?",
            "[On|] Monday {who} sold {a} {items}. On Tuesday {he} sold {words} on Monday. How many did {he} sell on Tuesday?",
            "{who2} owns {words} {who}, who owns {a} of them. What number does {who2} own?",
        ],
        ["The other one has {other}.", "{other}."],
        ["print({other})"],
    ),
    family(
        "shopping_total",
        _shopping,
        [
            "{who} buys {a} {items} [at|for] {p} {money} each and {b} {items2} [at|for] {q} {money} each. [How much does {he} pay|How much does {he} spend|What is the total cost|What does it cost in total]?",
            "A {item} costs {p} {money} and a {item2} costs {q}[ {money}|]. [How much do|What do] {a} {items} and {b} {items2} cost[ together| in total|]?",
            "{a} {items} [cost|at] {p} {money} each, {b} {items2} [cost|at] {q} each. [What is the total|Find the total price|How much is that altogether]?",
            "[Find|What is] the cost of {a} {items} at {p} {money} [each|apiece] and {b} {items2} at {q} {money} [each|apiece][?|.]",
            "I [buy|bought] {a} {items} for {p} {money} each and {b} {items2} for {q} {money} each. How much [do I pay|did I spend]?",
            "At the {shop}, {items} are {p} {money} and {items2} {q} {money}. {who} takes {a} of the first and {b} of the second. What must {he} pay?",
        ],
        ["{a} * {p} + {b} * {q}.", "Add the two costs: {a} * {p} and {b} * {q}."],
        ["print({a} * {p} + {b} * {q})"],
    ),
    family(
        "change",
        _change,
        [
            "{who} buys {a} {items} [at|for] {p} {money} each and pays with [a |]{m}[ {money}| dollar bill|]. How much change does {he} [get|receive][ back|]?",
            "{who} has {m} {money}. {He} buys {a} {items} [that cost|for] {p} {money} each. How much [money |]does {he} have left?",
            "[One|A] {item} costs {p}[ {money}|]. How much [is left of|remains of] {m} {money} after buying {a}[ of them| {items}|]?",
            "From {m} {money} you buy {a} {items} at {p} {money}[ each|]. [What is the change|How much change do you get]?",
            "After buying {a} {items}, {p} {money} apiece, how much of {who}'s {m} {money} is left over?",
        ],
        ["{m} minus {a} * {p}.", "Change: {m} - {a} * {p}."],
        ["print({m} - {a} * {p})"],
    ),
    family(
        "affordable",
        lambda r: {"m": number(r, 10, 2_000), "p": r.randint(2, 60)},
        [
            "[How many|What number of] {items} [at|costing|for] {p} {money} each can {who} buy [with|for] {m} {money}?",
            "{who} has {m} {money}. [A|Each|One] {item} costs {p}[ {money}|]. How many[ {items}|] can {he} [buy|afford][ at most|]?",
            "How many times can you pay {p} {money} [with|out of] {m} {money}?",
            "A {item} costs {p} {money}. What is the largest number [of {items} |]you can buy with {m}?",
            "{m} {money} are spent on {items} of {p} {money} each, as many as possible. How many are bought?",
        ],
        ["{m} // {p}, rounded down.", "Whole ones only: {m} // {p}."],
        ["print({m} // {p})"],
    ),
    family(
        "needed_containers",
        lambda r: {"n": number(r, 5, 3_000), "k": r.randint(2, 60)},
        [
            "{n} {items} are packed into {boxes} of {k}[ each|]. How many {boxes} are needed[ for all of them|]?",
            "[A bus|A boat|A van|Each bus] [holds|can carry|takes] {k} people. How many [buses|of them|boats|trips] are needed for {n} people?",
            "How many {boxes} does {who} need for {n} {items} if each {box} [holds|has room for] [at most |]{k}?",
            "{n} [children|guests|students] sit at tables for {k}. How many tables are needed?",
            "An elevator takes {k} persons. How often must it go up to bring {n} persons?",
            "If at most {k} {items} go into a {box}, what is the least number of {boxes} for {n} {items}?",
        ],
        ["Round {n} / {k} up.", "-(-{n} // {k})."],
        ["print(math.ceil({n} / {k}))", "print(-(-{n} // {k}))", "print(({n} + {k} - 1) // {k})"],
    ),
    family(
        "tickets",
        _tickets,
        [
            "[Adult tickets|Tickets for adults] cost {p} {money} and [child tickets|children's tickets|tickets for children] {q}[ {money}|]. {a} adults and {c} children [come|visit|pay]. [How much money is taken|What is the total income|How much do they pay]?",
            "A [show|museum|zoo] charges {p} {money} for an adult and {q} for a child. How much do {a} adults and {c} children pay?",
            "{a} adults at {p} {money} and {c} children at {q} {money} [visit a zoo|go to the cinema|see a play]. [What do they pay altogether|Find the total].",
            "[How much|What] do {a} adult tickets ({p} {money} each) and {c} child tickets ({q} {money} each) cost?",
            "Admission is {p} {money}, for children {q}. What does a group of {a} adults with {c} children have to pay?",
        ],
        ["{a} * {p} + {c} * {q}.", "Adults {a} * {p}, children {c} * {q}."],
        ["print({a} * {p} + {c} * {q})"],
    ),
    family(
        "weeks_of_saving",
        _saving,
        [
            "{who} saves {w} {money} [a|every|each|per] week. {He} already has {s}[ {money}|]. [After how many|In how many] weeks does {he} have [at least |]{g} {money}?",
            "{who} has {s} {money} and [saves|puts aside|earns] {w} {money} [a|each|every] week. How many weeks [does it take|are needed] [to have|to reach|until {he} has] {g}[ {money}|]?",
            "[A bicycle|A guitar|A phone] costs {g} {money}. {who} has {s} and saves {w} [a|every] week. How many weeks must {he} save?",
            "How many weeks of saving {w} {money} does it take to get from {s} {money} to [at least |]{g}?",
            "Beginning with {s} {money}, {who} adds {w} weekly. When, in weeks, has {he} got {g} or more?",
        ],
        ["Round ({g} - {s}) / {w} up.", "Missing: {g} - {s}; {w} a week."],
        ["print(math.ceil(({g} - {s}) / {w}))", "print(-(-({g} - {s}) // {w}))"],
    ),
    family(
        "legs",
        _legs,
        [
            "[A farm|A farmer|{who}] has {a} {x} and {b} {y}. How many {part} [are there|do they have] [in total|altogether|together|]?",
            "How many {part} do {a} {x} and {b} {y} have[ together| in all|]?",
            "There are {a} {x} and {b} {y}. [Find|What is] the [total |]number of {part}[?|.]",
            "{who} sees {a} {x} and {b} {y} and counts all {part}. What number does {he} get?",
            "Together, {b} {y} and {a} {x}: how many {part} is that?",
        ],
        ["{k} {part} for each of {a} {x}, {l} for each of {b} {y}.", "{a} * {k} + {b} * {l}."],
        ["print({a} * {k} + {b} * {l})"],
    ),
    family(
        "heads_and_legs",
        _heads,
        [
            "[A farm|A farmer|A yard|{who}] has {x} and {y}. There are {h} [heads|of them|in total] and {g} {part}. How many {ask} are there?",
            "[In a yard|On a farm|In a park] there are {h} {x} and {y} with {g} {part} [in total|altogether|in all]. How many {ask} [are there|are among them]?",
            "{x} and {y} [together |]have {g} {part}; there are {h} of them. [Find|What is] the number of {ask}[?|.]",
            "{who} counts {h} {x} and {y} and {g} {part}. How many are {ask}?",
            "Among {h} {x} and {y} there are altogether {g} {part}. What is the number of {ask}?",
        ],
        [
            "{x} have {k}, {y} {l} {part}: try all counts.",
            "a {x} with {k}, {h} - a {y} with {l}; {g} in all.",
        ],
        [
            "h, g = {h}, {g}\nfor a in range(h + 1):\n    if {k} * a + {l} * (h - a) == g:\n        print({code})",
            "h, g = {h}, {g}\na = (g - {l} * h) // ({k} - {l})\nprint({code})",
        ],
    ),
    family(
        "share_and_rest",
        lambda r: (lambda g, k: {"n": g + k * number(r, 1, 99), "g": g, "k": k})(
            number(r, 1, 99), r.randint(2, 12)
        ),
        [
            "{who} has {n} {items}, [keeps|puts aside] {g} and [shares|divides] the [rest|others] [equally|evenly] among {k} [friends|children|people]. How many does each [friend or child|one|of them] get?",
            "From {n} {items}, {g} are [broken|sold|eaten]. The [rest|remaining ones] are put [equally |evenly |]into {k} {boxes}. How many are in each[ {box}|]?",
            "{who} gives {g} of {his} {n} {items} to {who2} and splits the rest [equally|evenly] between {k} [boxes|bags|friends]. How many go to each?",
            "After {g} of {n} {items} are [taken|removed], the remaining ones are divided [by|among] {k}. How many does each get?",
            "Of {n} {items}, {g} are set aside; how many are there for each of {k} children, if the others are dealt out fairly?",
        ],
        ["({n} - {g}) / {k}.", "The rest is {n} - {g}, for {k}."],
        ["print(({n} - {g}) // {k})", "rest = {n} - {g}\nprint(rest // {k})"],
    ),
)
