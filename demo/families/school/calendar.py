"""Time, dates and units."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number

_UNITS = (
    ("minutes", "hour", 60), ("seconds", "minute", 60), ("hours", "day", 24), ("days", "week", 7),
    ("months", "year", 12), ("meters", "kilometer", 1000), ("centimeters", "meter", 100),
    ("grams", "kilogram", 1000), ("millimeters", "centimeter", 10), ("cents", "dollar", 100),
    ("seconds", "hour", 3600), ("inches", "foot", 12), ("feet", "yard", 3), ("milliliters", "liter", 1000),
    ("years", "century", 100), ("years", "decade", 10), ("minutes", "day", 1440), ("kilograms", "ton", 1000),
    ("eggs", "dozen", 12),
)  # fmt: skip
_PLURALS = {"foot": "feet", "century": "centuries", "dozen": "dozen"}


def _unit(r: Random) -> Params | None:
    small, big, k = r.choice(_UNITS)
    n = number(r, 1, 300)
    return (
        {
            "n": n,
            "k": k,
            "small": small,
            "big": big if n == 1 else _PLURALS.get(big, big + "s"),
            "t": n * k,
        }
        if n * k < 100_000
        else None
    )


def _hm(r: Random) -> Params:
    return {"h": r.randint(1, 40), "m": r.randint(1, 59)}


def _clock(r: Random) -> Params:
    a = r.randint(1, 22)
    b, m, n = r.randint(a + 1, 23), r.randint(0, 59), r.randint(0, 59)
    return {"a": a, "b": b, "m": m, "n": n, "start": f"{a}:{m:02}", "end": f"{b}:{n:02}"}


_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _dates(r: Random) -> Params | None:
    i, j = r.randrange(12), r.randrange(12)
    d, e = r.randint(1, _LENGTHS[i]), r.randint(1, _LENGTHS[j])
    year = r.choice((2023, 2025, 2026, 2027, 2024, 2021))
    if (i, d) >= (j, e):
        return None
    return {
        "first": f"{_MONTHS[i]} {d}",
        "last": f"{_MONTHS[j]} {e}",
        "y": year,
        "i": i + 1,
        "d": d,
        "j": j + 1,
        "e": e,
    }


def _leap(r: Random) -> Params:
    a = r.randint(1600, 2200)
    return {"a": a, "b": a + r.randint(5, 400)}


def _angle(r: Random) -> Params | None:
    h, m = r.randint(1, 12), r.choice((0, 0, 0, 10, 20, 30, 40, 50, 12, 24, 36, 48, 4, 8))
    angle = abs(30 * (h % 12) + m / 2 - 6 * m)
    return (
        {"h": h, "m": m, "time": f"{h}:{m:02}" if m or r.random() < 0.5 else f"{h} o'clock"}
        if angle == int(angle)
        else None
    )


FAMILIES = (
    family(
        "to_smaller_unit",
        _unit,
        [
            "How many {small} are [there |]in {n} {big}?",
            "{n} {big} [are|is|equals|make] how many {small}?",
            "[Convert|Change] {n} {big} [to|into] {small}.",
            "[Express|Write|Give] {n} {big} in {small}.",
            "[How many|What number of] {small} [make|are] {n} {big}?",
            "{n} {big} = ? {small}",
            "If something takes or measures {n} {big}, how much is it in {small}?",
        ],
        ["One is {k} {small}: {n} * {k}.", "{n} * {k}."],
        ["print({n} * {k})"],
    ),
    family(
        "to_larger_unit",
        _unit,
        [
            "How many {big} are {t} {small}?",
            "{t} {small} [are|is|equal|make] how many {big}?",
            "[Convert|Change] {t} {small} [to|into] {big}.",
            "[Express|Write|Give] {t} {small} in {big}.",
            "{t} {small} = ? {big}",
            "How much is {t} {small}, if counted in {big}?",
        ],
        ["{k} {small} each: {t} / {k}.", "{t} / {k}."],
        ["print({t} // {k})"],
    ),
    family(
        "hours_and_minutes",
        _hm,
        [
            "How many minutes are [there in |]{h} hours and {m} minutes?",
            "[Convert|Express] {h} hours {m} minutes [to|in] minutes.",
            "A [film|trip|flight] [takes|lasts] {h} hours and {m} minutes. How many minutes is that?",
            "{h} h {m} min are how many minutes?",
            "Give a duration of {h} hours plus {m} minutes in minutes alone.",
        ],
        ["{h} * 60 + {m}.", "60 minutes an hour: {h} * 60 + {m}."],
        ["print({h} * 60 + {m})"],
    ),
    family(
        "minutes_between",
        _clock,
        [
            "How many minutes [are there between|pass between|lie between] {start} and {end}?",
            "How many minutes [is it|are there|pass] from {start} to {end}?",
            "A [film|lesson|train ride] [starts|begins] at {start} and ends at {end}. How [long is it in minutes|many minutes does it take]?",
            "[A train|A bus|{who}] leaves at {start} and arrives at {end}[ on the same day|]. How many minutes does the [trip|journey] take?",
            "{who} works from {start} until {end} without a break. For how many minutes is that?",
        ],
        ["({b} * 60 + {n}) - ({a} * 60 + {m}).", "In minutes: {b}:{n} less {a}:{m}."],
        [
            "print(({b} * 60 + {n}) - ({a} * 60 + {m}))",
            "start = {a} * 60 + {m}\nend = {b} * 60 + {n}\nprint(end - start)",
        ],
    ),
    family(
        "days_between",
        _dates,
        [
            "How many days [are there|lie|pass] between {first}[, {y},|] and {last}, {y}?",
            "How many days is it from {first} to {last}[ in the year| of|,] {y}?",
            "[Today is|It is] {first}, {y}. How many days [are left|is it] until {last}[ of the same year|, {y}]?",
            "[Find|What is] the number of days from {first}, {y} to {last}, {y}[?|.]",
            "Starting on {first}, {y}, after how many days is it {last} of that year?",
        ],
        ["Subtract the dates {y}-{i}-{d} and {y}-{j}-{e}.", "Use datetime for {first} and {last}."],
        [
            "import datetime\nprint((datetime.date({y}, {j}, {e}) - datetime.date({y}, {i}, {d})).days)",
            "from datetime import date\ndays = date({y}, {j}, {e}) - date({y}, {i}, {d})\nprint(days.days)",
        ],
    ),
    family(
        "leap_years",
        _leap,
        [
            "How many leap years are there [from|between] {a} [to|and] {b}<incl>?",
            "[Count|Find the number of] leap years from {a} to {b}<incl>.",
            "How many [of the |]years from {a} to {b} [are leap years|have 366 days]?",
            "How many times is there a February 29 in the years {a} to {b}?",
            "In the years {a} through {b}, how often does February have 29 days?",
        ],
        ["Count leap years from {a} to {b}.", "calendar.isleap for {a} to {b}."],
        [
            "import calendar\nprint(sum(1 for y in range({a}, {b} + 1) if calendar.isleap(y)))",
            "print(sum(1 for y in range({a}, {b} + 1) if y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)))",
        ],
    ),
    family(
        "clock_angle",
        _angle,
        [
            "[What is|Find] the [smaller |]angle between the hands of a clock at {time}[?|.]",
            "How many degrees are between the hour hand and the minute hand at {time}?",
            "[At|It is] {time}[ on a clock|]. What [is the|] angle [do the hands form|is between the hands][ in degrees|]?",
            "A clock shows {time}. <find> the smaller angle between the hands in degrees.",
            "How wide, in degrees, do the two hands of a clock open when it is {time}?",
        ],
        ["Hour hand at 30 * {h} + {m} / 2, minute hand at 6 * {m}.", "Angle at {h}:{m}."],
        [
            "angle = abs(30 * ({h} % 12) + {m} / 2 - 6 * {m})\nprint(int(min(angle, 360 - angle)))",
            "a = abs(60 * ({h} % 12) + {m} - 12 * {m}) // 2\nprint(min(a, 360 - a))",
        ],
    ),
    family(
        "year_difference",
        lambda r: (lambda a, n: {"a": a, "b": a + n, "n": n})(
            r.randint(1500, 2000), r.randint(2, 120)
        ),
        [
            "How many years [lie|are there|passed] between {a} and {b}?",
            "{who} was born in {a}. How old [is|was|will] {he} [be |]in {b}?",
            "A [house|bridge|castle] was built in {a}. How [old|many years old] [is|was] it in [the year |]{b}?",
            "[From|Since] {a} [to|until] {b}, how many years is that?",
            "Something began in {a} and ended in {b}. For how many years did it last?",
        ],
        ["{b} - {a}.", "Years: {b} - {a}."],
        ["print({b} - {a})"],
    ),
)
