"""More phrasings of the families that are named after their mathematics, as grammars.

They come before the last phrasing of their family, which is held out.
"""

from __future__ import annotations

_GIVE = "[Give|State|Report|Write] [the answer|the result|it|your answer]"

WORDINGS: dict[str, tuple[str, ...]] = {
    "multiples_but_not": (
        "[Count|Find] the <whole> [<upto>|up to] {n} that are <multof> {a} or {b}[,| and] but not [<divby>|of] {c}.",
        "How many of the numbers 1 to {n} [are|can be] [divided by|divisible by] {a} or [by |]{b}, [yet|but] not by {c}?",
        "{who} circles every multiple of {a} and every multiple of {b} from 1 to {n}, then erases multiples of {c}. How many circled numbers [remain|are left]?",
    ),
    "coprime_in_interval": (
        "How many [integers|numbers] from {a} to {b} are [coprime|relatively prime] to {m}?",
        "[Count|Find] the [integers|numbers] between {a} and {b}<incl> [with no common factor with|that share no prime factor with|coprime to|relatively prime to] {m}.",
        "For how many $k$ from {a} to {b} is the greatest common divisor of $k$ and {m} [equal to |]1?",
    ),
    "prime_count": (
        "[Count|Find] the [primes|prime numbers] [from|in the range] {a} to {b}<incl>.",
        "{who} lists all [primes|prime numbers] from {a} to {b}. How many are [there|on the list]?",
        "How many of the [integers|numbers] {a}, ..., {b} are [prime|primes|prime numbers]?",
    ),
    "nth_prime": (
        "[What is|Find|Determine|Give] the {k}th prime[ number|][?|.]",
        "[What is|Find] the {k}th prime, [if|where] 2 is the first[ one|][?|.]",
        "The primes are 2, 3, 5, 7, [and so on|...]. [What|Which] [is the {k}th|one has number {k}]?",
        "[What is|Find] prime number {k} [in the list|in the sequence] 2, 3, 5, 7, 11, ...?",
    ),
    "gcd_sum": (
        "[Compute|Find] the [sum|total] of the greatest common divisors of {m} and $k$ for [all |]$k$ from 1 to {n}.",
        "[Add|Sum up] $\\gcd(1, {m})$, $\\gcd(2, {m})$, ..., $\\gcd({n}, {m})$.",
    ),
    "largest_prime_factor": (
        "[What is|Find] the [largest|greatest|biggest] prime [factor|divisor] of the number ${a} \\cdot {b} + {c}$[?|.]",
        "[What is|Find] the largest prime [that divides|dividing] ${a} \\times {b} + {c}$[?|.]",
        "The number ${a} \\cdot {b} + {c}$ is [factored|split into primes]. [What is|Find] the [largest|greatest] prime[ factor|][?|.]",
    ),
    "factorial_divisible": (
        "[What is|Find] the smallest $n$ [for which|such that] $n!$ is [a multiple of|divisible by] {m}[?|.]",
        "[Which|What] is the first factorial [divisible by|that is a multiple of] {m}? Give the number whose factorial it is.",
        "How [large|big] must $n$ be [at least |]so that {m} divides $n!$?",
    ),
    "linear_congruence": (
        "[Solve|Find the least non-negative solution of] ${a}x \\equiv {b} \\pmod{{m}}$[ for the smallest $x \\ge 0$|].",
        "[What is|Find] the smallest $x \\ge 0$ [with|such that] ${a}x \\bmod {m} = {b}$[?|.]",
        "[Which|What] is the smallest whole number that, [multiplied by|times] {a}, leaves {b} [modulo|on division by] {m}?",
    ),
    "three_remainders": (
        "A number leaves remainder {a} [mod|when divided by] {p}, remainder {b} [mod|when divided by] {q} and remainder {c} [mod|when divided by] {s}. [What is the smallest such positive integer|Find the least one].",
        "[Solve|Find the smallest positive solution]: $x \\equiv {a} \\pmod{{p}}$, $x \\equiv {b} \\pmod{{q}}$, $x \\equiv {c} \\pmod{{s}}$.",
        "{items} are counted: by {p}s, {a} are left over; by {q}s, {b}; by {s}s, {c}. What is the [smallest|least] number of {items}?",
    ),
    "multiplicative_order": (
        "[What is|Find] the order of {a} modulo {m}[?|.]",
        "[What is|Find] the [smallest|least] [positive |]exponent $k$ [for which|such that] ${a}^k$ leaves remainder 1 <mod> {m}[?|.]",
        "How [often|many times] must {a} be multiplied by itself, [at least|at minimum], until the power is 1 modulo {m}? Give the exponent.",
    ),
    "cubic_congruence": (
        "[Count|Find] the [residues|remainders|integers] $x$ modulo {m} with $x^3 + {a}x + {b}$ divisible by {m}.",
        "[How many solutions|How many roots] modulo {m} does $x^3 + {a}x + {b}$ have?",
    ),
    "polynomial_value_mod": (
        "[What is|Find] $P({n})$ modulo {m} [for|if] $P(x) = {a}x^3 + {b}x + {c}$[?|.]",
        "[Evaluate|Compute] ${a}x^3 + {b}x + {c}$ at $x = {n}$, [modulo|mod] {m}.",
        "What remainder [is left|remains] when ${a}x^3 + {b}x + {c}$ with $x = {n}$ is divided by {m}?",
    ),
    "factorial_zeros": (
        "How many [trailing |]zeros does ${n}!$ have [at the end |]in base {b}?",
        "[Count|Find] the zeros at the end of ${n}!$ [in base {b}|written in base {b}].",
        "Written in base {b}, with how many zeros does {n} factorial end?",
    ),
    "digit_sum_count": (
        "How many [numbers|integers] [from|between] {a} [to|and] {b}<incl> have [digits that add up to|a digit sum of] {s}?",
        "[Count|Find] the [integers|numbers] from {a} to {b} with digit sum [equal to |]{s}.",
        "In how many of the numbers {a} to {b} [is the sum of the digits|do the digits sum to] {s}?",
    ),
    "digit_occurrences": (
        "[How often|How many times] does the digit {d} [appear|occur] in the numbers from {a} to {b}?",
        "[Someone|{who}] writes [down |]all [numbers|integers] from {a} to {b}. How many {d}s [does {he} write|are written]?",
        "[Count|Find] how many times the digit {d} [is used|appears] in writing {a} through {b}.",
    ),
    "palindromes": (
        "How many palindromic [numbers|integers] [<upto>|up to] {n} are <multof> {k}?",
        "[Count|Find] the [positive |]palindromes [<upto>|up to] {n} that {k} divides.",
        "How many numbers from 1 to {n} are [both |]palindromes and multiples of {k}?",
    ),
    "binary_ones": (
        "How many [numbers|integers] from {a} to {b} have [exactly |]{k} ones in binary?",
        "[Count|Find] the [numbers|integers] from {a} to {b} whose binary [form|representation|expansion] has [exactly |]{k} ones.",
        "In base 2, how many [of the |]numbers {a} to {b} have [exactly |]{k} digits equal to 1?",
    ),
    "lattice_paths": (
        "How many [shortest |]paths [lead|go] from $(0, 0)$ to $({a}, {b})$, going right or up, without passing $({c}, {d})$? " + _GIVE + " modulo {m}.",
        "[Modulo {m}, how many|How many, modulo {m},] lattice paths from the origin to $({a}, {b})$ avoid $({c}, {d})$?",
        "[Count|Find the number of] up-right paths from $(0, 0)$ to $({a}, {b})$ that miss $({c}, {d})$, [modulo|mod] {m}.",
    ),
    "bounded_solutions": (
        "In how many ways can {n} [equal|identical] {items} be put in {k} different {boxes} with at most {t} in each? " + _GIVE + " modulo {m}.",
        "[Count|Find], modulo {m}, the [integer |]solutions of $x_1 + \\cdots + x_{{k}} = {n}$ with $0 \\le x_i \\le {t}$.",
        "{k} [dice-like numbers|numbers] from 0 to {t} sum to {n}. [In how many ways, modulo {m}|How many ways are there modulo {m}]?",
    ),
    "coin_change": (
        "[In how many ways|How many ways are there in which] can one [pay|make] {n} cents with coins of {a}, {b} and {c} cents?".replace("[In how many ways|How many ways are there in which]", "In how many ways"),
        "[Coins|Stamps|Notes] of {a}, {b} and {c} {money} are [available|given]. In how many ways can {n} be [paid|made]?",
        "How many [combinations|ways] of {a}s, {b}s and {c}s [add up|sum] to {n}?",
    ),
    "binary_strings": (
        "How many [binary words|binary strings|0-1 sequences] of length {n} [have|contain] no {k} [consecutive ones|ones in a row|adjacent 1s]? " + _GIVE + " modulo {m}.",
        "[Count|Find], modulo {m}, the sequences of {n} coin tosses without {k} heads in a row.",
        "Modulo {m}, how many strings of {n} bits avoid {k} ones in a row?",
    ),
    "binomial_mod": (
        "[What is|Find|Compute] {n} choose {k} modulo {m}[?|.]",
        "[In how many ways|In how many ways, modulo {m},] can {k} [things|people] be chosen out of {n}? Give [the answer|it] modulo {m}.",
        "What remainder does the binomial coefficient {n} over {k} leave <mod> {m}?",
    ),
    "pairs_divisible_sum": (
        "[Count|Find] the pairs of [different |distinct ]numbers from 1 to {n} [whose sum is|with a sum] divisible by {k}.".replace("[different |distinct ]", "[different|distinct] "),
        "In how many ways can two [different|distinct] numbers from 1 to {n} be [chosen|picked] so that their sum is a multiple of {k}?",
        "How many pairs of [different |]{items} numbered 1 to {n} have numbers adding to a multiple of {k}?",
    ),
    "subset_sums": (
        "[Count|Find], modulo {m}, the subsets of $\\{1, \\ldots, {n}\\}$ [whose sum is|with a sum] divisible by {k}[, the empty set included|, including the empty set].",
        "How many [sets|selections] of numbers from 1 to {n} have a sum [divisible by|that is a multiple of] {k}? Count the empty one; [answer|give the answer] modulo {m}.",
    ),
    "integer_triangles": (
        "How many [different |]triangles with [integer|whole-number] sides have perimeter {p}?",
        "[Count|Find the number of] [different |]integer-sided triangles with perimeter {p}.",
        "{who} makes triangles from {p} matches, using all of them. How many different triangles are possible?",
    ),
    "derangements_mod": (
        "[Count|Find] the [derangements|permutations without fixed points] of {n} [elements|things|objects], modulo {m}.",
        "In how many ways can {n} people each [get|take] somebody else's {item}? [Give|Answer with] the number modulo {m}.",
        "[What is|Find] the number of ways, modulo {m}, to put {n} letters in {n} envelopes with all of them wrong[?|.]",
    ),
    "linear_recurrence": (
        "A sequence has $a_1 = {a}$, $a_2 = {b}$, and $a_n = {p}a_{n-1} + {q}a_{n-2}$. [What is|Find] $a_{{n}} \\bmod {m}$[?|.]",
        "Each term of a sequence is {p} times the [previous|preceding] term plus {q} times the one before that; it starts {a}, {b}. [What is|Find] term {n} modulo {m}[?|.]",
        "[Compute|Find] the {n}th term, modulo {m}, of the sequence with first terms {a} and {b} and rule $a_n = {p}a_{n-1} + {q}a_{n-2}$.",
    ),
    "square_iteration": (
        "[Start|Begin] with {x} and [repeat {n} times|do {n} times]: square it, add {c}, take it modulo {m}. What [is the result|do you get]?",
        "[What is|Find] $x_{{n}}$ if $x_0 = {x}$ and $x_{k+1} = (x_k^2 + {c}) \\bmod {m}$[?|.]",
        "{who} replaces a number by its square plus {c}, modulo {m}. From {x}, what is it after {n} [steps|rounds]?",
    ),
    "collatz": (
        "[How many|Count the] steps [does the Collatz process take|are needed in the Collatz problem] from {n} to 1[?|.]".replace("[How many|Count the]", "How many").replace("[?|.]", "?"),
        "[Take|Start with] {n}; [halve it if it is even, otherwise triple it and add one|even numbers are halved, odd ones become 3n+1]. How many steps until 1?",
        "[What is|Find] the [number of steps|length] of the Collatz sequence from {n} down to 1, [counting steps|in steps][?|.]",
    ),
    "fibonacci_mod": (
        "[What is|Find|Compute] the {n}th Fibonacci number [modulo|mod] {m}[?|.]",
        "[What is|Find] the remainder [of the {n}th Fibonacci number|when the {n}th Fibonacci number is divided] [by|on division by] {m}[?|.]".replace("[of the {n}th Fibonacci number|when the {n}th Fibonacci number is divided] [by|on division by]", "when the {n}th Fibonacci number is divided by"),
        "[What is|Compute] $F_{{n}} \\bmod {m}$ for the Fibonacci numbers $F_k$[?|.]",
    ),
    "floor_sum": (
        "[Compute|Find] $\\lfloor {n}/1 \\rfloor + \\lfloor {n}/2 \\rfloor + \\cdots + \\lfloor {n}/{n} \\rfloor$.",
        "[Add up|Sum] the number of divisors of [all |the |]numbers from 1 to {n}.",
        "[What is|Find] the sum of the whole quotients of {n} by 1, 2, ..., {n}[?|.]",
    ),
    "multiples_sum_mod": (
        "[Add|Sum] all multiples of {a} or {b} up to {n}. [What is|Find] the [sum|total] modulo {m}[?|.]",
        "[What is|Find] the sum of the numbers from 1 to {n} [that are |]divisible by {a} or {b}, [modulo|mod] {m}[?|.]",
    ),
    "prime_sum_mod": (
        "[Add|Sum] all [primes|prime numbers] up to {n}. [What is|Find] the [sum|total] modulo {m}[?|.]",
        "[What is|Find] the sum of the primes [<upto>|up to] {n}, [modulo|mod] {m}[?|.]",
    ),
    "circle_points": (
        "[Count|Find] the [lattice points|integer points|points with integer coordinates] with $x^2 + y^2 \\le {r}$.",
        "How many [lattice|integer] points lie in or on the circle $x^2 + y^2 = {r}$?",
        "How many pairs of integers $(x, y)$ [satisfy|have] $x^2 + y^2 \\le {r}$?",
    ),
    "triangle_area": (
        "[What is|Find] twice the area of the triangle [through|with corners] $({a}, {b})$, $({c}, {d})$, $({e}, {f})$[?|.]",
        "The points $({a}, {b})$, $({c}, {d})$ and $({e}, {f})$ [form|span] a triangle. [Double|Find twice] its area.",
        "Double the area of the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$: what [is it|do you get]?",
    ),
    "triangle_interior": (
        "[Count|Find] the lattice points [strictly |]inside the triangle [with corners |with vertices |]$({a}, {b})$, $({c}, {d})$, $({e}, {f})$.",
        "How many points with integer coordinates lie [in the interior of|strictly inside] the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$?",
    ),
    "boundary_points": (
        "[Count|Find] the lattice points on the [boundary|sides|perimeter] of the triangle [with corners |with vertices |]$({a}, {b})$, $({c}, {d})$, $({e}, {f})$.",
        "How many points with integer coordinates lie on the [boundary|edges] of the triangle $({a}, {b})$, $({c}, {d})$, $({e}, {f})$?",
    ),
    "diamond_points": (
        "[Count|Find] the integer pairs $(x, y)$ with $|x| + |y| \\le {n}$ and $x + 2y$ [divisible by|a multiple of] {k}.",
        "For how many [lattice points|integer points] with $|x| + |y| \\le {n}$ does {k} divide $x + 2y$?",
    ),
    "right_triangles": (
        "[Count|Find] the right triangles with [integer|whole-number] sides and hypotenuse [at most|up to|not above] {n}.",
        "How many Pythagorean triples have [a largest number|a hypotenuse] of at most {n}?",
        "How many Pythagorean triples $a < b < c$ are there with $c \\le {n}$?",
    ),
    "quadratic_roots": (
        "[What is|Find] the [larger|greater|bigger] [solution|root] of $x^2 - {s}x + {p} = 0$[?|.]",
        "Two numbers have sum {s} and product {p}. [What is|Find] the [larger|greater] one[?|.]",
        "Solve $x^2 - {s}x + {p} = 0$ and give the [larger|greater|bigger] [root|solution].",
    ),
    "two_squares": (
        "[Count|Find] the integer [solutions|pairs $(x, y)$] [of|with] $x^2 + y^2 = {n}$.",
        "In how many ways can {n} be written as $x^2 + y^2$ with integers $x$ and $y$, [order and signs counting|where order and signs matter]?",
        "How many lattice points lie on $x^2 + y^2 = {n}$?",
    ),
    "coefficient_mod": (
        "[What is|Find] the coefficient of $x^{{k}}$ in $({a}x + {b})^{{n}}$ [modulo|mod] {m}[?|.]",
        "[Expand|Multiply out] $({a}x + {b})^{{n}}$. [What is|Find] the coefficient of $x^{{k}}$ modulo {m}[?|.]",
        "Which coefficient has $x^{{k}}$ in $({a}x + {b})^{{n}}$? Give it modulo {m}.",
    ),
    "factorial_mod": (
        "[Add|Sum] $1!, 2!, \\ldots, {n}!$, multiply by {a} and [reduce|take it] modulo {m}. What [is the result|do you get]?",
        "[What is|Find] ${a}(1! + 2! + \\cdots + {n}!)$ modulo {m}[?|.]",
    ),
    "hyperbola": (
        "[Count|Find] the pairs of positive integers with $1/x + 1/y = 1/{a}$ and $x \\le {b} + {a}$.",
        "How many positive integer solutions with $x \\le {b} + {a}$ does $\\frac{1}{x} + \\frac{1}{y} = \\frac{1}{{a}}$ have?",
    ),
    "largest_square": (
        "[What is|Find] the integer part of $\\sqrt{{a} \\cdot 10^{{b}}}$, modulo {m}[?|.]",
        "[Round|Round down] $\\sqrt{{a} \\cdot 10^{{b}}}$ down to an integer. [What is|Find] it modulo {m}[?|.]".replace("[Round|Round down] ", "Round "),
    ),
}  # fmt: skip
"""Phrasings by the name of their family."""
