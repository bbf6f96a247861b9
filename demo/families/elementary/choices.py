"""Ways to choose, order and combine."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number

_WORDS = ["MISSISSIPPI", "BANANA", "LEVEL", "APPLE", "LETTER", "BALLOON", "COFFEE", "MATH", "SEQUENCE", "PARABOLA", "STATISTICS", "NOON", "CHEESE", "SUMMER", "WINTER", "PEPPER", "ALGEBRA", "KITTEN", "TENNESSEE", "BOOK", "TREE", "CAT", "DOG", "MONDAY", "ORANGE", "ERROR", "BUBBLE", "COMMITTEE", "SUCCESS", "ANAGRAM", "COCOA", "TOMATO", "POTATO", "BANANAS", "RADAR", "KAYAK", "HANNAH", "EEL", "BEE", "ALL", "NUMBER", "SQUARE", "TRIANGLE", "GOOGLE", "YELLOW", "PURPLE", "SCHOOL", "TEACHER", "LADDER", "BUTTER", "GIRAFFE", "MAMMAL", "PIZZA"]  # fmt: skip


def _choose(r: Random) -> Params:
    n = r.randint(3, 40)
    return {"n": n, "k": r.randint(1, min(n - 1, 8))}


def _committee(r: Random) -> Params:
    a, b = r.randint(2, 14), r.randint(2, 14)
    return {"a": a, "b": b, "k": r.randint(1, min(a, 4)), "l": r.randint(1, min(b, 4))}


def _outfits(r: Random) -> Params:
    return {"a": r.randint(2, 20), "b": r.randint(2, 20), "c": r.randint(2, 12)}


def _dice(r: Random) -> Params:
    k = r.randint(2, 4)
    return {"k": k, "s": r.randint(k, 6 * k)}


def _digits(r: Random) -> Params:
    d = r.randint(2, 5)
    return {
        "d": d,
        "word": ("two", "three", "four", "five")[d - 2],
        "low": 10 ** (d - 1),
        "high": 10**d - 1,
    }


def _property(r: Random) -> Params:
    text, code = r.choice(
        (
            ("with [all |]different digits", "len(set(str(n))) == len(str(n))"),
            ("whose digits are all different", "len(set(str(n))) == len(str(n))"),
            ("whose digits are all odd", "all(c in '13579' for c in str(n))"),
            ("whose digits are all even", "all(c in '02468' for c in str(n))"),
            ("that contain the digit 7", "'7' in str(n)"), ("containing the digit 3", "'3' in str(n)"),
            ("without the digit 9", "'9' not in str(n)"), ("with no digit 0", "'0' not in str(n)"),
            ("that are palindromes", "str(n) == str(n)[::-1]"), ("that are perfect squares", "math.isqrt(n)**2 == n"),
            ("that read the same backwards", "str(n) == str(n)[::-1]"), ("that are prime", "sympy.isprime(n)"),
            ("whose digits are in increasing order", "list(str(n)) == sorted(set(str(n)))"),
            ("with digit sum 10", "sum(map(int, str(n))) == 10"), ("divisible by their digit sum", "n % sum(map(int, str(n))) == 0"),
        )
    )  # fmt: skip
    return {
        **_digits(r),
        "what": text if "[" not in text else "with all different digits",
        "code": code,
    }


FAMILIES = (
    family(
        "choose",
        _choose,
        [
            "[In how many ways|How many ways are there to|In how many different ways] can [you |one |]choose {k} [of|from|out of] {n} [people|{items}|things|students]?".replace(
                "are there to|", "|"
            ).replace("[In how many ways||", "[In how many ways|"),
            "[What is|Compute|Find] $\\binom{{n}}{{k}}$[?|.]",
            "[What is|Compute] {n} choose {k}[?|.]",
            "How many [committees|teams|groups] of {k} [people |]can be [formed|chosen|made] from {n} [people|students|members]?",
            "How many [subsets with {k} elements|{k}-element subsets] does a set [of|with] {n} elements have?",
            "{who} takes {k} of {n} [different |]{items}. How many [choices|selections] are [there|possible]?",
            "A coach picks {k} players out of {n}. In how many ways can this be done, if order does not matter?",
        ],
        ["math.comb({n}, {k}).", "{n} choose {k}."],
        [
            "print(math.comb({n}, {k}))",
            "print(math.factorial({n}) // (math.factorial({k}) * math.factorial({n} - {k})))",
        ],
    ),
    family(
        "arrange_k_of_n",
        lambda r: (lambda k: {"n": r.randint(k, {1: 99, 2: 99, 3: 40, 4: 18, 5: 11}[k]), "k": k})(
            r.randint(2, 5)
        ),
        [
            "In how many ways can {k} of {n} [people|books|runners|students] be [arranged|placed|put] in [a row|a line|order]?",
            "How many [ordered selections|arrangements|permutations] of {k} [of|out of] {n} [different |distinct |][things|objects|letters] are there?",
            "In how many ways can the first {k} places go to {n} [runners|contestants|players] in a race?",
            "{n} [runners|players|teams] compete. How many [outcomes|possibilities] are there for the first {k} [places|ranks][, in order|]?",
            "How many words of {k} different letters can be made from {n} letters[, each used at most once|]?",
            "From {n} people, {k} different jobs are filled. How many ways exist?",
        ],
        ["math.perm({n}, {k}).", "Ordered choices of {k} from {n}."],
        ["print(math.perm({n}, {k}))", "print(math.factorial({n}) // math.factorial({n} - {k}))"],
    ),
    family(
        "arrange_all",
        lambda r: {"n": r.randint(2, 8)},
        [
            "[In how many ways|In how many different orders] can {n} [people|books|{items}|children] [be arranged|be lined up|stand|sit] in a [row|line]?",
            "How many [permutations|arrangements|orders] [are there of|do] {n} [different |distinct |][things|objects|letters|books][ have|]?".replace(
                "[are there of|do]", "are there of"
            ).replace("[ have|]", ""),
            "How many ways are there to [arrange|order|line up] {n} [different |][books|people|pictures]?",
            "{n} friends [line up|queue up|sit on a bench]. In how many [orders|ways] can they do so?",
            "In how many sequences can {n} different songs be played, each once?",
        ],
        ["{n} factorial.", "math.factorial({n})."],
        ["print(math.factorial({n}))", "p = 1\nfor k in range(1, {n} + 1):\n    p *= k\nprint(p)"],
    ),
    family(
        "round_table",
        lambda r: {"n": r.randint(3, 9)},
        [
            "In how many ways can {n} people sit [around|at] a round table[ if rotations count as the same|, up to rotation|]?",
            "How many [seatings|arrangements] of {n} people [around|at] a [round|circular] table are there[ (rotations are the same)|, rotations being equal|]?",
            "{n} [knights|guests|friends] sit at a round table. In how many different ways[ up to rotation|]?",
            "[Count|Find] the circular [permutations|arrangements] of {n} [people|objects].",
            "How many different rings can {n} dancers form, if only who stands next to whom on which side matters?",
        ],
        ["({n} - 1) factorial.", "Fix one of {n}; order the others."],
        ["print(math.factorial({n} - 1))"],
    ),
    family(
        "letters_of_word",
        lambda r: {"word": r.choice(_WORDS)},
        [
            "[In how many ways|In how many different ways] can the letters of [the word |]{word} be [arranged|ordered|rearranged]?",
            "How many [different |distinct |][arrangements|permutations|anagrams|words] [do|have|can be made of] [all |]the letters of {word}[ have|]?".replace(
                "[do|have|can be made of]", "can be made of"
            ).replace("[ have|]", ""),
            "[Count|Find the number of] [distinct |different |]anagrams of {word}.",
            "How many [different |]words, also without meaning, [can be formed|are there] with all letters of {word}?",
            "The letters in {word} are shuffled. How many different strings may result?",
        ],
        [
            "Factorial of the length over the factorials of the repeats in {word}.",
            "Multinomial for {word}.",
        ],
        [
            "w = '{word}'\nn = math.factorial(len(w))\nfor c in set(w):\n    n //= math.factorial(w.count(c))\nprint(n)",
            "w = '{word}'\nprint(math.factorial(len(w)) // math.prod(math.factorial(w.count(c)) for c in set(w)))",
        ],
    ),
    family(
        "handshakes",
        lambda r: {
            "n": number(r, 2, 400),
            "act": r.choice(("handshakes", "games", "hugs", "matches")),
        },
        [
            "{n} people [meet|are at a party|are in a room] and [everyone|each] shakes hands with everyone else[ once|]. How many handshakes [are there|take place]?",
            "[At a party|In a room] [each|every] of {n} people shakes hands [once |]with each other[ person|]. How many handshakes [are there|is that]?",
            "How many [handshakes|games|matches] are there if [each|every one] of {n} [people|players|teams] meets every other once?",
            "[In a tournament|In a league] {n} [teams|players] play, each against each other[ once|]. How many [games|matches] are played?",
            "How many [lines|segments|chords] [connect|join] {n} points[, no three on a line,|] in pairs?",
            "{n} friends clink glasses, every pair exactly once. How many clinks are heard?",
        ],
        ["{n} * ({n} - 1) / 2.", "Pairs out of {n}."],
        ["print({n} * ({n} - 1) // 2)", "print(math.comb({n}, 2))"],
    ),
    family(
        "people_from_handshakes",
        lambda r: (lambda n: {"s": n * (n - 1) // 2})(r.randint(3, 300)),
        [
            "Everyone at a party shakes hands with everyone else[ once|]. There are {s} handshakes. How many people [are there|are at the party]?",
            "In a [league|tournament] each team plays each other [team |]once[, which makes| and there are] {s} games. How many teams [are there|play]?",
            "{s} handshakes take place when each person shakes hands with all others. How many persons?",
            "[Find|Solve for] $n$ if $\\binom{n}{2} = {s}$.",
            "If the number of pairs in a group is {s}, how many are in the group?",
        ],
        ["n with n * (n - 1) / 2 == {s}.", "Search n: pairs are {s}."],
        [
            "n = 2\nwhile n * (n - 1) // 2 != {s}:\n    n += 1\nprint(n)",
            "print((1 + math.isqrt(1 + 8 * {s})) // 2)",
        ],
    ),
    family(
        "outfits",
        _outfits,
        [
            "{who} has {a} shirts, {b} [pairs of |]trousers and {c} [hats|pairs of shoes]. How many [different |][outfits|combinations] [are possible|can {he} wear|are there]?",
            "A [menu|restaurant] [has|offers] {a} starters, {b} main dishes and {c} desserts. How many [different |](three-course |)meals are [possible|there]?".replace(
                "(three-course |)", "[three-course |]"
            ),
            "In how many ways can one choose [one of|from] {a} {items}, [one of|from] {b} {items2} and [one of|from] {c} {items3}[, one of each|]?",
            "There are {a} roads from A to B, {b} from B to C and {c} from C to D. How many routes lead from A to D?",
            "A password has one of {a} letters, one of {b} digits and one of {c} signs, in this order. How many are there?",
        ],
        ["{a} * {b} * {c}.", "Multiply the choices {a}, {b}, {c}."],
        ["print({a} * {b} * {c})"],
    ),
    family(
        "pairs_of_choices",
        lambda r: {"a": r.randint(2, 99), "b": r.randint(2, 99)},
        [
            "{who} has {a} shirts and {b} [pairs of |]trousers. How many [different |][outfits|combinations] [are possible|can {he} wear|are there]?",
            "[In how many ways|How many ways are there to] can one [boy|man] of {a} and one [girl|woman] of {b} be chosen?".replace(
                "[In how many ways|How many ways are there to]", "In how many ways"
            ),
            "A shop sells {a} kinds of {items} and {b} kinds of {items2}. How many ways are there to buy one of each?",
            "How many pairs [are there|can be made] of one of {a} {items} and one of {b} {items2}?",
            "Each of {a} boys dances with each of {b} girls. How many dances is that?",
        ],
        ["{a} * {b}.", "Multiply {a} and {b} choices."],
        ["print({a} * {b})"],
    ),
    family(
        "strings_with_repeats",
        lambda r: (
            lambda k: {"n": r.randint(2, {1: 99, 2: 99, 3: 46, 4: 17, 5: 10, 6: 6}[k]), "k": k}
        )(r.randint(2, 6)),
        [
            "How many [codes|words|strings|sequences] of [length {k}|{k} symbols] can be made [from|with] {n} [symbols|letters|signs][ if repetition is allowed|, with repetition|, each usable several times]?",
            "A [lock|code|password] has {k} places, each with one of {n} [symbols|letters]. How many [codes|possibilities] are there?",
            "How many outcomes [are there|are possible] when a {n}-sided die is rolled {k} times?",
            "[In how many ways|How many ways are there that] can {k} [questions|items] be answered, each with one of {n} choices?".replace(
                "[In how many ways|How many ways are there that]", "In how many ways"
            ),
            "{k} {items} are each painted in one of {n} colors. In how many ways is this possible?",
            "Every one of {k} persons picks one out of {n} dishes, freely. How many orders are conceivable?",
        ],
        ["{n}**{k}.", "{n} choices, {k} times."],
        ["print({n}**{k})"],
    ),
    family(
        "coin_flips",
        lambda r: (lambda n: {"n": n, "k": r.randint(0, n)})(r.randint(2, 18)),
        [
            "[In how many ways|How many ways are there that|In how many sequences] can {n} coin [flips|tosses] [give|show] exactly {k} heads?".replace(
                "|How many ways are there that", ""
            ),
            "A coin is [flipped|tossed] {n} times. In how many [ways|outcomes] are there exactly {k} heads?",
            "How many sequences of {n} coin [flips|tosses] [have|contain|show] exactly {k} [heads|tails]?",
            "How many binary [strings|words] of length {n} [have|contain] exactly {k} ones?",
            "Of {n} coins in a row, {k} show heads and the others tails. How many such rows are there?",
        ],
        ["{n} choose {k}.", "Choose the {k} of {n}."],
        ["print(math.comb({n}, {k}))"],
    ),
    family(
        "all_subsets",
        lambda r: (
            lambda k: {"n": r.randint(1, 16), "what": k, "less": "" if k == "subsets" else " - 1"}
        )(r.choice(("subsets", "subsets", "non-empty subsets", "proper subsets"))),
        [
            "How many {what} does a set [with|of] {n} elements have?",
            "[What is|Find] the number of {what} of a set [with|of] {n} elements[?|.]",
            "[Count|Find] the {what} of $\\{1, 2, \\ldots, {n}\\}$.",
            "A set has {n} [members|elements]. How many {what} [has it|does it have]?",
            "How many {what} can be formed out of {n} different objects?",
        ],
        ["2**{n}{less}.", "Each of {n} elements is in or out."],
        ["print(2**{n}{less})"],
    ),
    family(
        "dice_sum",
        _dice,
        [
            "In how many ways can {k} [dice|standard dice|six-sided dice] [give|show|have] [a sum of|the sum|a total of] {s}?",
            "{k} dice are [rolled|thrown]. How many outcomes have [sum|total] {s}?",
            "How many [rolls|outcomes] of {k} [distinguishable |]dice [add up|sum] to {s}?",
            "{who} rolls a die {k} times. In how many ways is the [sum|total] {s}?",
            "How often does the total {s} come up among all results of {k} dice?",
        ],
        ["All rolls of {k} dice with sum {s}.", "itertools.product of {k} dice."],
        ["print(sum(1 for d in itertools.product(range(1, 7), repeat={k}) if sum(d) == {s}))"],
    ),
    family(
        "committee_of_two_kinds",
        _committee,
        [
            "[In how many ways|How many ways are there that] can {k} of {a} [boys|men] and {l} of {b} [girls|women] be chosen?".replace(
                "[In how many ways|How many ways are there that]", "In how many ways"
            ),
            "A [committee|team|group] of {k} men and {l} women is [chosen|formed] from {a} men and {b} women. [In how many ways|How many possibilities are there]?",
            "From {a} [teachers|boys] and {b} [students|girls], a team of {k} and {l} is [picked|chosen]. In how many ways[ is this possible|]?",
            "How many [teams|committees] with {k} men and {l} women [are there|can be formed] out of {a} men and {b} women?",
            "{a} red and {b} blue balls, all different, lie in a bag. How many ways to take {k} red and {l} blue ones?",
        ],
        ["comb({a}, {k}) * comb({b}, {l}).", "{k} of {a} and {l} of {b}."],
        ["print(math.comb({a}, {k}) * math.comb({b}, {l}))"],
    ),
    family(
        "grid_paths",
        lambda r: {"a": r.randint(1, 9), "b": r.randint(1, 9)},
        [
            "How many [shortest |]paths [go|lead|are there] from the [bottom left|lower left] to the [top right|upper right] corner of a {a} by {b} grid[ moving only right or up|, moving right and up only|]?",
            "[In how many ways|How many ways are there that] can one go {a} steps [east|right] and {b} steps [north|up] in any order?".replace(
                "[In how many ways|How many ways are there that]", "In how many ways"
            ),
            "How many [lattice |]paths from $(0, 0)$ to $({a}, {b})$ [use|have] only steps right and up?",
            "A [robot|king|rook] moves on a grid from $(0,0)$ to $({a},{b})$, one step right or up at a time. How many [paths|ways] are there?",
            "Walking {a} blocks one way and {b} blocks the other, how many different routes may a taxi take?",
        ],
        ["comb({a} + {b}, {a}).", "Order {a} and {b} steps."],
        ["print(math.comb({a} + {b}, {a}))"],
    ),
    family(
        "drawer",
        lambda r: {"k": r.randint(2, 30), "m": r.randint(2, 20)},
        [
            "A drawer [has|contains] socks of {k} colors. How many must be taken[ in the dark|] to be sure of {m} of one color?",
            "How many {items} must {who} draw from a bag with {k} colors to [have|be certain of] {m} of the same color?",
            "[At least how|How] many people are needed so that {m} [of them |]are surely [born in the same month|of the same group], if there are {k} [groups|such months]?",
            "[What is|Find] the smallest number of objects in {k} [boxes|classes] so that one has at least {m}[?|.]",
            "In {k} colors there are plenty of marbles. What number taken blindly guarantees {m} alike?",
        ],
        ["{k} * ({m} - 1) + 1.", "Pigeonhole: {m} - 1 of each of {k}, and one more."],
        ["print({k} * ({m} - 1) + 1)"],
    ),
    family(
        "numbers_with_property",
        _property,
        [
            "How many {word}-digit [numbers|integers] {what} are there?",
            "How many {d}-digit [numbers|integers] {what} [are there|exist]?",
            "[Count|Find] the {word}-digit [numbers|integers] {what}.",
            "[Find|What is] the number of [positive |]{word}-digit [numbers|integers] {what}[?|.]",
            "Of all numbers with {word} digits, how many are there {what}?",
        ],
        ["n from {low} to {high} with {code}.", "Test {code} for each n."],
        [
            "print(sum(1 for n in range({low}, {high} + 1) if {code}))",
            "count = 0\nfor n in range({low}, {high} + 1):\n    if {code}:\n        count += 1\nprint(count)",
        ],
    ),
    family(
        "digit_numbers",
        _digits,
        [
            "How many {word}-digit [numbers|integers|positive integers] are there?",
            "How many [positive |]integers have [exactly |]{word} digits?",
            "[Count|Find the number of] {d}-digit [numbers|integers].",
            "[What is|Find] the number of {word}-digit numbers[?|.]",
            "How many natural numbers are written with {d} digits?",
        ],
        ["{high} - {low} + 1.", "From {low} to {high}."],
        ["print({high} - {low} + 1)"],
    ),
)
