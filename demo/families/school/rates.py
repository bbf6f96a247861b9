"""Speed, work, ages, fences and other quantities that depend on one another."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number


def _journey(r: Random) -> Params:
    v, t = number(r, 2, 300), r.randint(2, 24)
    return {
        "v": v,
        "t": t,
        "d": v * t,
        "vehicle": r.choice(("train", "car", "bus", "cyclist", "ship", "plane", "runner", "truck")),
    }


def _two_trains(r: Random) -> Params | None:
    a, b, t = number(r, 5, 150), number(r, 5, 150), r.randint(1, 12)
    return {"a": a, "b": b, "d": (a + b) * t, "t": t}


def _catch_up(r: Random) -> Params:
    b, extra, t = number(r, 2, 90), number(r, 1, 60), r.randint(1, 15)
    return {"a": b + extra, "b": b, "d": extra * t}


def _workers(r: Random) -> Params | None:
    a, d, b = r.randint(2, 30), r.randint(2, 40), r.randint(2, 30)
    return {"a": a, "d": d, "b": b} if a * d % b == 0 and a != b else None


def _pipes(r: Random) -> Params | None:
    a, b = r.randint(2, 60), r.randint(2, 60)
    return {"a": a, "b": b} if a * b % (a + b) == 0 else None


def _age_sum(r: Random) -> Params:
    young, gap = r.randint(2, 50), r.randint(1, 40)
    return {"s": 2 * young + gap, "d": gap, "ask": r.choice(("older", "younger"))}


def _age_times(r: Random) -> Params | None:
    child, k, years = r.randint(2, 20), r.randint(2, 5), r.randint(1, 20)
    parent = k * (child + years) - years
    return {"c": child, "p": parent, "k": k} if 18 <= parent - child <= 60 else None


def _fence(r: Random) -> Params:
    gap, n = r.randint(2, 25), r.randint(2, 99)
    return {"d": gap, "l": gap * n}


def _snail(r: Random) -> Params:
    up = r.randint(2, 12)
    return {"u": up, "d": r.randint(1, up - 1), "h": number(r, 5, 200)}


FAMILIES = (
    family(
        "distance",
        _journey,
        [
            "A {vehicle} [travels|goes|moves|drives] at {v} [km/h|kilometers per hour|miles per hour|km per hour] for {t} hours. How far does it [go|travel|get]?",
            "[How far|What distance] does a {vehicle} [go|travel|cover] in {t} hours at [a speed of |]{v} [km/h|kilometers per hour|mph]?",
            "With a [constant |]speed of {v} km[/h| per hour], how many [km|kilometers] [are covered|does a {vehicle} travel] in {t} hours?",
            "A {vehicle} covers {v} [km|meters] [each|every|per] [hour|minute]. What distance does it cover in {t}[ of them|]?",
            "If a {vehicle} moves {v} meters per second, how many meters does it move in {t} seconds?",
            "After {t} hours at {v} kilometers an hour, what distance lies behind a {vehicle}?",
        ],
        ["Distance = {v} * {t}.", "Speed times time: {v} * {t}."],
        ["print({v} * {t})"],
    ),
    family(
        "speed",
        _journey,
        [
            "A {vehicle} [travels|goes|covers|drives] {d} [km|kilometers|miles] in {t} hours. What is its [average |]speed[ in km/h| in miles per hour|]?",
            "[How fast|At what speed] does a {vehicle} [go|travel] that [covers|needs {t} hours for] {d} km[ in {t} hours|]?",
            "What speed[ in km per hour|] is {d} km in {t} hours?",
            "{d} kilometers take a {vehicle} {t} hours. [Find|What is] its speed[?|.]",
            "A {vehicle} needs {t} hours for {d} km. How many km does it do per hour?",
        ],
        ["Speed = {d} / {t}.", "Distance {d} over time {t}."],
        ["print({d} // {t})"],
    ),
    family(
        "travel_time",
        _journey,
        [
            "[How long|How many hours] does a {vehicle} [take|need] for {d} km at {v} [km/h|kilometers per hour]?",
            "A {vehicle} [travels|goes|drives] at {v} [km/h|kilometers per hour|mph]. [How many hours|How long] [does it take|does it need] [for|to cover|to travel] {d} [km|kilometers|miles]?",
            "In how many hours does one [cover|travel] {d} kilometers at a speed of {v} km/h?",
            "At {v} km per hour, [after|in] how many hours has a {vehicle} gone {d} km?",
            "{d} km lie ahead of a {vehicle} that does {v} km an hour. How many hours will it be on the road?",
        ],
        ["Time = {d} / {v}.", "{d} / {v} hours."],
        ["print({d} // {v})"],
    ),
    family(
        "meeting",
        _two_trains,
        [
            "Two [trains|cars|cyclists|people] are {d} km apart and [move|travel|go] toward each other at {a} [km/h |]and {b} km/h. [After how many hours|When, in hours,] do they meet?",
            "The distance between two [towns|cities] is {d} km. [One|A] [train|car] starts from each [toward the other|to the other], with speeds {a} and {b} km/h. [After how many hours do they meet|How many hours until they meet]?",
            "Two [walkers|ships|trains] start {d} km apart and approach each other, one at {a}, the other at {b} km per hour. How many hours [pass|go by] until they meet?",
            "[How long|How many hours] do two [cars|trains] [need|take] to meet that are {d} km apart and drive toward one another at {a} and {b} km/h?",
            "From both ends of a {d} km long road, cars set out at {a} km/h and {b} km/h. In how many hours are they side by side?",
        ],
        ["They approach at {a} + {b}; {d} in all.", "{d} / ({a} + {b})."],
        ["print({d} // ({a} + {b}))"],
    ),
    family(
        "catching_up",
        _catch_up,
        [
            "[A dog|A car|{who}] is {d} [m|meters|km] behind [a cat|a truck|{who2}] and [moves|runs|goes] {a} [per minute|each minute], the other {b}. After how many minutes does the first catch [up|the second]?",
            "{who} has a lead of {d} meters and walks {b} meters per minute. {who2} follows at {a} meters per minute. After how many minutes [does {he2} catch {him}|has {he2} caught up]?",
            "How [long|many minutes] does a runner with {a} meters a minute need to catch one with {b} meters a minute who is {d} meters ahead?",
            "A gap of {d} closes as the pursuer does {a} and the pursued {b} per second. How many seconds does it take?",
            "With {d} km between them, a truck at {b} km/h is chased by a car at {a} km/h. How many hours until it is reached?",
        ],
        ["The gap {d} closes by {a} - {b}.", "{d} / ({a} - {b})."],
        ["print({d} // ({a} - {b}))"],
    ),
    family(
        "workers",
        _workers,
        [
            "{a} [workers|machines|painters|people] need {d} [days|hours] for a [job|task|wall]. How many [days|hours] do {b} [of them|workers|machines] need[ for it|]?",
            "If {a} [men|workers|pumps] [finish|do|complete] a [job|task] in {d} days, how [long|many days] [do|will] {b} [take|need]?",
            "A job takes {a} people {d} days. [How many days|How long] does it take {b} people[ at the same pace|]?",
            "[Food|Hay|Water] for {a} [horses|people|cows] lasts {d} days. How many days does it last for {b}?",
            "{b} workers do what {a} workers did in {d} days. How many days do they spend?",
        ],
        ["The work is {a} * {d}; divide by {b}.", "{a} * {d} / {b}."],
        ["print({a} * {d} // {b})"],
    ),
    family(
        "working_together",
        _pipes,
        [
            "[One pipe|A pump|{who}] [needs|takes] {a} [hours|minutes|days] [alone|for a job|to fill a tank], [another|{who2}|a second one] {b}. How many do they need together?",
            "{who} can [paint|clean|finish] [a room|a job|a house] in {a} hours and {who2} in {b} hours. How [long|many hours] do they need together?",
            "Two [pipes|taps|pumps] fill a [tank|pool] in {a} and {b} hours[ alone|]. In how many hours do both [together |]fill it?",
            "If A takes {a} days for a job and B takes {b} days, how many days do they take [jointly|working together]?",
            "A basin is filled by one tap in {a} minutes, by the other in {b}. Both are open. After how many minutes is it full?",
        ],
        ["1/{a} + 1/{b} of the job per unit of time.", "{a} * {b} / ({a} + {b})."],
        ["print({a} * {b} // ({a} + {b}))"],
    ),
    family(
        "ages_by_sum",
        _age_sum,
        [
            "{who} and {who2} are {s} years old together. {who} is {d} years older than {who2}. How old is the {ask} one?",
            "The sum of [the ages of |]two [brothers' ages|people's ages|sisters' ages] is {s} and [their difference|the difference] is {d}. How old is the {ask}[ one|]?",
            "{who} is {d} years younger than {who2}; together they are {s}. [What is the age of|How old is] the {ask} of the two?",
            "Two ages add up to {s} and differ by {d}. [Find|What is] the age of the {ask}[ person| one][?|.]",
            "{d} years lie between two friends whose ages total {s}. Give the {ask} one's age.",
        ],
        ["Sum {s}, difference {d}: the {ask} one.", "Half of {s} plus or minus {d}."],
        [
            "older = ({s} + {d}) // 2\nyounger = {s} - older\nprint({ask})",
            "for younger in range({s} + 1):\n    older = younger + {d}\n    if older + younger == {s}:\n        print({ask})",
        ],
    ),
    family(
        "years_until_multiple",
        _age_times,
        [
            "{who} is {c} years old and {his} [mother|father] is {p}. In how many years will the [parent|mother or father] be {k} times as old as {who}?",
            "A [father|mother] is {p} and the [son|daughter|child] is {c}. [After how many years|In how many years] is the parent {k} times as old[ as the child|]?",
            "[Today|Now] {who} is {c} and {who2} is {p}. How many years from now will {who2} be {k} times as old as {who}?",
            "In how many years will a {p}-year-old be {k} times as old as a {c}-year-old?",
            "{p} and {c} are the ages of parent and child. How many years pass before the first is {k} times the second?",
        ],
        ["Solve {p} + y = {k} * ({c} + y).", "Try y until {p} + y is {k} times {c} + y."],
        [
            "print(({p} - {k} * {c}) // ({k} - 1))",
            "y = 0\nwhile {p} + y != {k} * ({c} + y):\n    y += 1\nprint(y)",
        ],
    ),
    family(
        "age_in_years",
        lambda r: {"a": r.randint(2, 70), "y": r.randint(1, 40), "d": r.randint(1, 30)},
        [
            "{who} is {a} years old. {who2} is {d} years older. How old will {who2} be in {y} years?",
            "{who2} is {d} years older than {who}, who is {a}. [What age|How old] will {who2} be {y} years from now?",
            "In {y} years, how old is somebody who is {d} years older than {who}, [now|who is now] {a}[ years old|]?",
            "[Now|Today] {who} is {a}. {His} [brother|sister] is {d} years older. What is the [brother's or sister's|sibling's] age in {y} years?",
            "{y} years from today, what will be the age of {who2}, who was born {d} years before the {a}-year-old {who}?",
        ],
        ["{a} + {d} + {y}.", "Now {a} + {d}, then {y} more."],
        ["print({a} + {d} + {y})"],
    ),
    family(
        "posts",
        _fence,
        [
            "A [fence|straight fence|row of posts] is {l} [m|meters|feet] long, with a post every {d} [m|meters|feet][, also at both ends| from end to end|, including both ends]. How many posts [are there|does it need]?",
            "[Trees|Lamps|Posts] [are planted|stand] every {d} meters along a {l} meter [street|path|road], at both ends too. How many are there?",
            "Along a [road|path] of {l} meters there are [trees|lamps] {d} meters apart, the first at the beginning and the last at the end. How many [are there|trees or lamps are that]?",
            "How many posts, {d} m apart, does a straight fence of {l} m need[ if there is one at each end|, ends included]?",
            "From one end to the other of a {l} foot wall flags are put up at intervals of {d} feet. Count the flags.",
        ],
        ["{l} / {d} gaps and one post more.", "{l} // {d} + 1."],
        ["print({l} // {d} + 1)"],
    ),
    family(
        "cuts",
        lambda r: {"n": r.randint(2, 60), "m": r.randint(1, 20)},
        [
            "A [log|pipe|rope|bar] is cut into {n} pieces. Each cut takes {m} minute[s|]. How [long|many minutes] does [it|the whole cutting] take?",
            "How many minutes does it take to [saw|cut] a [trunk|board|log] into {n} pieces if a cut takes {m} minutes?",
            "{who} [saws|cuts] a [log|rope] into {n} [parts|pieces] and needs {m} minutes for each cut. How many minutes [in total|does {he} need]?",
            "A ribbon is cut into {n} strips, {m} seconds a cut. [What is the total time in seconds|How many seconds in all]?",
            "To get {n} pieces from one rod, with {m} minutes spent on every cut, how much time in minutes is needed?",
        ],
        ["{n} pieces need {n} - 1 cuts of {m}.", "({n} - 1) * {m}."],
        ["print(({n} - 1) * {m})"],
    ),
    family(
        "snail",
        _snail,
        [
            "A snail climbs {u} [m|meters|feet] [a day|each day|by day] and slips back {d} [m|meters|feet] [each night|at night]. On which day does it [reach the top of|get out of] a {h} [m|meter|foot] [well|pole|wall]?",
            "A [snail|frog|worm] [is in|sits at the bottom of] a {h} meter deep [well|hole]. Each day it climbs {u} meters, each night it slides down {d}. After how many days is it out?",
            "[By day|In the daytime] a [bug|snail] goes up {u} cm, [by night|at night] down {d} cm. How many days until it reaches {h} cm?",
            "How many days does a snail need to climb a {h} foot pole if it gains {u} feet every day and loses {d} feet every night?",
            "Up {u} by daylight, down {d} in the dark: on what day has a snail scaled {h} meters?",
        ],
        [
            "Simulate: up {u}, and down {d} if {h} is not reached.",
            "Days until {h}, with {u} up and {d} down.",
        ],
        [
            "height = 0\nday = 0\nwhile True:\n    day += 1\n    height += {u}\n    if height >= {h}:\n        break\n    height -= {d}\nprint(day)",
            "print(1 + max(0, math.ceil(({h} - {u}) / ({u} - {d}))))",
        ],
    ),
    family(
        "rate_times_time",
        lambda r: {
            "a": number(r, 2, 400),
            "t": r.randint(2, 60),
            "unit": r.choice(("minute", "hour", "day", "week")),
        },
        [
            "[A machine|A factory|{who}] makes {a} {items} [per|a|every|each] {unit}. How many in {t} {unit}s?",
            "{who} [reads|writes] {a} pages [a|per|every] {unit}. How many pages [is that|does {he} do] in {t} {unit}s?",
            "A [tap|pump] gives {a} liters [per|each] {unit}. How many liters [does it give|flow] in {t} {unit}s?",
            "At {a} {items} per {unit}, how many {items} are made in {t} {unit}s?",
            "Every {unit} {a} {items} arrive. How many have arrived after {t} {unit}s?",
        ],
        ["{a} * {t}.", "Rate times time: {a} * {t}."],
        ["print({a} * {t})"],
    ),
    family(
        "time_from_rate",
        lambda r: (
            lambda a, t: {"a": a, "n": a * t, "unit": r.choice(("minute", "hour", "day", "week"))}
        )(number(r, 2, 200), number(r, 2, 99)),
        [
            "[A machine|A factory|{who}] makes {a} {items} [per|a|every|each] {unit}. How many {unit}s [are needed for|does it take to make] {n}[ {items}|]?",
            "{who} reads {a} pages [a|per|each] {unit}. [How many {unit}s|How long, in {unit}s,] does {he} need for [a book of |]{n} pages?",
            "A [tank|pool] of {n} liters is [filled|emptied] at {a} liters per {unit}. How many {unit}s does [it|that] take?",
            "In how many {unit}s are {n} {items} made at {a} per {unit}?",
            "{n} {items} must be packed, {a} each {unit}. After how many {unit}s is the work done?",
        ],
        ["{n} / {a}.", "{n} divided by the rate {a}."],
        ["print({n} // {a})"],
    ),
)
