"""Percentages, ratios, proportions and averages."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _percent(r: Random) -> Params | None:
    p = r.choice((1, 2, 4, 5, 8, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 60, 65, 70, 75, 80, 90))
    n = number(r, 10, 9_999) * r.choice((1, 2, 4, 5, 10))
    return {"p": p, "n": n} if n * p % 100 == 0 else None


def _what_percent(r: Random) -> Params | None:
    n = r.choice((20, 25, 40, 50, 80, 100, 150, 200, 250, 400, 500, 800, 1000, 60, 120, 300))
    a = r.randint(1, n)
    return {"a": a, "n": n} if a * 100 % n == 0 else None


def _ratio(r: Random) -> Params:
    a, b = r.randint(1, 12), r.randint(1, 12)
    if a == b:
        b += 1
    return {"a": a, "b": b, "n": (a + b) * number(r, 2, 200)}


def _three_ratio(r: Random) -> Params:
    a, b, c = (r.randint(1, 9) for _ in range(3))
    part = r.choice(("largest", "smallest"))
    code = "max" if part == "largest" else "min"
    return {
        "a": a,
        "b": b,
        "c": c,
        "n": (a + b + c) * number(r, 2, 200),
        "part": part,
        "code": code,
    }


def _proportion(r: Random) -> Params:
    a, unit, b = r.randint(2, 12), number(r, 2, 60), number(r, 2, 40)
    return {"a": a, "c": a * unit, "b": b if b != a else b + 1}


def _average(r: Random) -> Params:
    n = r.randint(2, 7)
    values = [number(r, 1, 300) for _ in range(n - 1)]
    total = sum(values)
    last = r.randint(1, 300)
    last += -(total + last) % n
    values.append(last)
    r.shuffle(values)
    code = ", ".join(map(str, values))
    text = (
        code
        if r.random() < 0.4
        else code[: code.rindex(",")] + r.choice((" and ", ", and ")) + str(values[-1])
    )
    return {"list": text, "code": code, "n": n}


def _missing_average(r: Random) -> Params | None:
    made = _average(r)
    n = int(made["n"]) + 1
    values = list(map(int, str(made["code"]).split(", ")))
    m = r.randint(max(values) // 2, 2 * max(values))
    return {**made, "m": m, "k": n} if m * n - sum(values) > 0 else None


def _median(r: Random) -> Params:
    values = [number(r, 1, 300) for _ in range(r.choice((3, 5, 5, 7, 9)))]
    code = ", ".join(map(str, values))
    return {"list": code, "code": code}


def _mode(r: Random) -> Params:
    values = r.sample(range(1, 60), r.randint(3, 6))
    values += [values[0]] * r.randint(1, 2)
    r.shuffle(values)
    code = ", ".join(map(str, values))
    return {"list": code, "code": code}


def _new_average(r: Random) -> Params | None:
    n, m, x = r.randint(2, 30), number(r, 2, 99), number(r, 1, 300)
    return {"n": n, "m": m, "x": x} if (n * m + x) % (n + 1) == 0 else None


FAMILIES = (
    family(
        "percent_of",
        _percent,
        [
            "[What is|Compute|Find|How much is|Calculate] {p}[%| %| percent] of {n}[?|.]",
            "[How much is|What is] {p} percent of {n}[ {money}| people| kg|]?",
            "{p}[%| percent] of [the |]{n} [students|people|members|voters] [in a school|in a club|of a town|asked] [like math|voted|have a pet|came]. How many [is that|people is that|are they]?",
            "[A school has|A club has|There are] {n} [students|members|children][. {p}% of them| and {p} percent of them] are [girls|boys|new]. How many [are that|girls or boys is that|is this]?",
            "{who} [earns|has] {n} {money} and [saves|spends] {p}[%| percent] of [it|the money]. How much does {he} [save|spend|put aside or pay]?",
            "[Find|Compute] ${p}\\%$ of ${n}$.",
            "Take {p} hundredths of {n}. [How much is it|What number is it]?",
            "A tax of {p}% is charged on {n} {money}. How big is the tax?",
        ],
        ["{p} percent of {n}: {n} * {p} / 100.", "Multiply {n} by {p} and divide by 100."],
        ["print({n} * {p} // 100)", "print({p} * {n} // 100)"],
    ),
    family(
        "percent_less",
        _percent,
        [
            "[A {item} costs|The price of a {item} is|A {item} is priced at] {n} {money}. [In a sale, the|During a sale the|The] price is reduced by {p}[%| percent]. What is the [new|sale] price?",
            "[A|Some] {item} that costs {n} {money} is [sold|on sale] at {p}[%| percent] off. [How much is it now|What does it cost now|What is the sale price|How much do you pay]?",
            "Decrease {n} by {p}[%| percent].",
            "[With|After] a discount of {p}[%| percent], [what is the price of something|how much do you pay for a {item}] that [normally |usually |]costs {n} {money}?",
            "A town had {n} [people|inhabitants]. The number fell by {p}[%| percent]. How many are there now?",
            "[What is|Find] {n} minus {p} percent of it[?|.]",
            "A shop takes {p}% off a {n} dollar {item}. What is left to pay?",
        ],
        ["{n} less {p} percent.", "Keep 100 - {p} percent of {n}."],
        ["print({n} * (100 - {p}) // 100)", "print({n} - {n} * {p} // 100)"],
    ),
    family(
        "percent_more",
        _percent,
        [
            "[A {item} costs|The price of a {item} is|The rent is|A salary is] {n} {money}. It [rises|increases|goes up|grows] by {p}[%| percent]. What is [the new amount|it then|it now]?",
            "Increase {n} by {p}[%| percent].",
            "[A town|A village|A school] has {n} [people|inhabitants|members]. [Next year|In the next year] the number grows by {p}[%| percent]. How many will there be?",
            "[What is|Find] {n} plus {p}[%| percent][ of it|][?|.]",
            "{who} [pays|is billed] {n} {money} plus {p}[%| percent] [tax|tip|service charge]. How much [is that in total|does {he} pay altogether|is the bill]?",
            "{who} puts {n} {money} in a bank at {p}[%| percent] interest [a year|per year]. How much [money does {he} have|is there] after one year?",
            "A number, {n}, is enlarged by {p} percent. What does it become?",
        ],
        ["{n} plus {p} percent.", "100 + {p} percent of {n}."],
        ["print({n} * (100 + {p}) // 100)", "print({n} + {n} * {p} // 100)"],
    ),
    family(
        "what_percent",
        _what_percent,
        [
            "[What|Which] [percent|percentage] of {n} is {a}?",
            "{a} is [what|which] [percent|percentage] of {n}?",
            "{who} [got|answered] {a} [of|out of] {n} questions right. What percent[ is that| is this|age did {he} get]?",
            "[Of|Out of] {n} [students|people|{items}], {a} are [new|left-handed|red|late]. What percent[age|] is that?",
            "Express {a} out of {n} as a percentage.",
            "What percentage do {a} of {n} {items} make?",
        ],
        ["{a} of {n} in percent: 100 * {a} / {n}.", "The share {a}/{n} in percent."],
        ["print(100 * {a} // {n})"],
    ),
    family(
        "whole_from_percent",
        lambda r: (lambda p, k: {"p": p, "a": p * k // 100})(
            r.choice((5, 10, 20, 25, 40, 50, 60, 75, 80)), 100 * number(r, 1, 99)
        ),
        [
            "{a} is {p}[%| percent] of [what|which] number?",
            "{p}[%| percent] of a number is {a}. [What is the number|Find the number|Which number is it]?",
            "{a} [students|people|members] are {p}[%| percent] of all. How many [are there|are there in total]?",
            "{who} spent {a} {money}, which is {p}[%| percent] of {his} money. How much [money |]did {he} have?",
            "If {p} percent of some quantity equals {a}, how large is the whole quantity?",
        ],
        ["The whole is 100 * {a} / {p}.", "Divide {a} by {p} percent."],
        ["print(100 * {a} // {p})"],
    ),
    family(
        "ratio_larger_share",
        _ratio,
        [
            "{who} and {who2} share {n} {items} in the ratio {a}:{b}. How many does {who} get?",
            "[Divide|Split|Share] {n} in the ratio {a} [to|:] {b}. [What is the first part|How large is the first part|Give the first share].",
            "[In a class|In a choir|In a club], the ratio of boys to girls is {a}:{b}. There are {n} [children|in total|students]. How many [boys are there|of them are boys]?",
            "{n} {money} are [shared|divided] between {who} and {who2} in the ratio {a} to {b}. How much does {who} [get|receive]?",
            "A sum of {n} is split so that the first part is to the second as {a} to {b}. How big is the first part?",
        ],
        ["The first share is {n} * {a} / ({a} + {b}).", "{a} parts of {a} + {b}, in all {n}."],
        ["print({n} * {a} // ({a} + {b}))", "part = {n} // ({a} + {b})\nprint(part * {a})"],
    ),
    family(
        "ratio_of_three",
        _three_ratio,
        [
            "[The numbers|Three numbers|Three angles|Three shares] are in the ratio {a}:{b}:{c} and [their sum is|add up to] {n}. [What is|Find] the {part} [one|of them]?",
            "{n} {items} are shared among {who}, {who2} and {who3} in the ratio {a}:{b}:{c}. What is the {part} share?",
            "Divide {n} in the ratio ${a} : {b} : {c}$. <find> the {part} part.",
            "Three [friends|partners] divide {n} {money} in the ratio {a} to {b} to {c}. How much is the {part} share?",
            "Split {n} into three parts that are to each other as {a}, {b} and {c}. How big is the {part} part?",
        ],
        ["The {part} share of {n} in {a}:{b}:{c}.", "One part is {n} / ({a} + {b} + {c})."],
        [
            "print({n} * {code}({a}, {b}, {c}) // ({a} + {b} + {c}))",
            "part = {n} // ({a} + {b} + {c})\nprint(part * {code}({a}, {b}, {c}))",
        ],
    ),
    family(
        "proportion",
        _proportion,
        [
            "{a} {items} cost {c} {money}. [How much do|What do|What is the cost of] {b} {items}[ cost|]?",
            "If {a} {items} [weigh|cost] {c} [grams|cents|units], how much do {b} [{items}|of them|such {items}] [weigh or cost|come to|make]?",
            "A [car|train|machine] [uses|needs|takes] {c} [liters|units|minutes] for {a} [trips|rounds|parts]. How many does it [use|need|take] for {b}?",
            "{a} [boxes|packs] [contain|hold] {c} {items}. How many {items} [do|are in] {b} [such |]boxes[ contain|]?",
            "A recipe for {a} [people|persons] needs {c} [grams|g] of flour. How [much|many grams] [is|are] needed for {b} people?",
            "[A machine makes|{who} makes] {c} {items} in {a} [hours|minutes|days]. How many [{items} |]in {b} [hours|minutes|days]?",
            "For {a} tickets one pays {c} {money}. How much does one pay for {b} tickets?",
        ],
        ["One costs {c} / {a}; take {b} of them.", "Proportion: {c} / {a} * {b}."],
        ["print({c} // {a} * {b})", "unit = {c} // {a}\nprint(unit * {b})"],
    ),
    family(
        "average",
        _average,
        [
            "[What is|Find|Compute|Calculate] the [average|mean|arithmetic mean] of [the numbers |]{list}[?|.]",
            "[What is|Find] the mean of the [data|values|list|numbers] {list}[?|.]",
            "{who} [scored|got|has scores of] {list} [points |]in {n} [tests|games|rounds]. What is {his} average[ score|]?",
            "The [temperatures|heights|ages|weights] are {list}. What is the [average|mean]?",
            "On {n} days {who} [read|sold|walked] {list} [pages|{items}|km]. What is the daily average?",
            "[Average|Take the mean of] {list}.",
            "If the numbers {list} were evened out to be all equal, with the same sum, what would each be?",
        ],
        ["The mean of {code}.", "Add {code} and divide by {n}."],
        ["print(sum([{code}]) // {n})", "numbers = [{code}]\nprint(sum(numbers) // len(numbers))"],
    ),
    family(
        "median",
        _median,
        [
            "[What is|Find|Compute] the median of [the numbers |the list |the data set |]{list}[?|.]",
            "[What is|Find] the middle [value|number] [when|if] {list} are [sorted|put in order|arranged by size][?|.]",
            "The [scores|ages|prices] are {list}. What is the median?",
            "{who} [writes|measured] the values {list}. <find> their median.",
            "Sort the numbers {list} and name the one in the center.",
        ],
        ["The median of {code}.", "Sort {code} and take the middle."],
        [
            "numbers = sorted([{code}])\nprint(numbers[len(numbers) // 2])",
            "import statistics\nprint(statistics.median([{code}]))",
        ],
    ),
    family(
        "most_frequent",
        _mode,
        [
            "[What is|Find] the mode of [the numbers |the list |the data |]{list}[?|.]",
            "Which [number|value] [appears|occurs] most often in [the list |]{list}?",
            "[What is|Find] the most [frequent|common] [number|value] [among|of|in] {list}[?|.]",
            "{who} rolled {list}. Which number came up most often?",
            "In the row {list} one value is repeated more than any other. Which one?",
        ],
        ["The most frequent of {code}.", "The mode of {code}."],
        [
            "import statistics\nprint(statistics.mode([{code}]))",
            "numbers = [{code}]\nprint(max(numbers, key=numbers.count))",
        ],
    ),
    family(
        "number_for_average",
        _missing_average,
        [
            "The [average|mean] of {list} and [another number|one more number|a number x|$x$] is {m}. [What is that number|Find the other number|What is $x$]?",
            "{who} scored {list} in {n} tests. What must {he} score in the next test to [have|reach|get] an average of {m}?",
            "Which number must be added to the list {list} so that the [average|mean] [becomes|is] {m}?",
            "The mean of {k} numbers is {m}. {n} of them are {list}. [Find|What is] the [last|remaining|missing] one?",
            "Besides {list} there is one more number, and all of them together average {m}. Which is it?",
        ],
        [
            "All {k} numbers sum to {k} * {m}; subtract {code}.",
            "Total {m} * {k} less the sum of {code}.",
        ],
        ["print({m} * {k} - sum([{code}]))"],
    ),
    family(
        "sum_from_average",
        lambda r: {"n": number(r, 2, 99), "m": number(r, 2, 300)},
        [
            "The [average|mean] of {n} numbers is {m}. What is their [sum|total]?",
            "{n} [numbers|students|players] have an average [of|score of] {m}. [Find|What is] the [sum|total][?|.]",
            "[If|Suppose] the mean of {n} values is {m}[, what do they add up to|. What is the sum of the values]?",
            "{who} [sold|read|ran] an average of {m} [{items}|pages|km] [a day|per day] for {n} days. How many [in total|is that altogether]?",
            "On average {m} people come to each of {n} concerts. How many come in all?",
        ],
        ["The sum is {n} * {m}.", "Average times count: {m} * {n}."],
        ["print({n} * {m})"],
    ),
    family(
        "average_after_one_more",
        _new_average,
        [
            "The [average|mean] of {n} numbers is {m}. [Another number, {x},|The number {x}] is [added|included]. What is the new [average|mean]?",
            "{n} [students|people] have an average [age|score|height] of {m}. One more with {x} joins. What is the new average?",
            "[After|In] {n} games {who} has an average of {m} points. In the next game {he} scores {x}. What is {his} average now?",
            "The mean of {n} values is {m}. What is the mean if the value {x} is [appended|added to them]?",
            "{n} parcels weigh {m} kg on average; then a parcel of {x} kg comes on top. How much do they weigh on average now?",
        ],
        ["New mean: ({n} * {m} + {x}) / ({n} + 1).", "Total {n} * {m} + {x} over {n} + 1."],
        [
            "print(({n} * {m} + {x}) // ({n} + 1))",
            "total = {n} * {m} + {x}\nprint(total // ({n} + 1))",
        ],
    ),
)
