"""Lengths, areas, volumes and angles of simple shapes."""

from __future__ import annotations

from random import Random

from ..family import Params, family, number

_NAMES = {
    "triangle": 3, "quadrilateral": 4, "pentagon": 5, "hexagon": 6, "heptagon": 7, "octagon": 8,
    "nonagon": 9, "decagon": 10, "dodecagon": 12,
}  # fmt: skip


def _two(r: Random) -> Params:
    return {"a": number(r, 1, 300), "b": number(r, 1, 300)}


def _polygon(r: Random) -> Params:
    if r.random() < 0.6:
        name = r.choice(list(_NAMES))
        return {"shape": name, "n": _NAMES[name]}
    n = r.randint(4, 100)
    words = r.choice(
        (f"{n}-gon", f"polygon with {n} sides", f"{n}-sided polygon", f"polygon with {n} vertices")
    )
    return {"shape": words, "n": n}


def _regular(r: Random) -> Params | None:
    made = _polygon(r)
    return made if int(made["n"]) > 2 and 360 % int(made["n"]) == 0 else None


def _perimeter(r: Random) -> Params:
    made = _polygon(r)
    return {**made, "a": number(r, 1, 200)}


def _pythagoras(r: Random) -> Params:
    m, k = r.randint(2, 9), r.randint(1, 8)
    n = r.randint(1, m - 1)
    a, b, c = k * (m * m - n * n), k * 2 * m * n, k * (m * m + n * n)
    return {"a": a, "b": b, "c": c}


def _triangle_angles(r: Random) -> Params:
    a = r.randint(5, 120)
    return {"a": a, "b": r.randint(5, 175 - a)}


def _triangle_area(r: Random) -> Params | None:
    made = _two(r)
    return made if int(made["a"]) * int(made["b"]) % 2 == 0 else None


def _trapezoid(r: Random) -> Params | None:
    a, b, h = number(r, 1, 99), number(r, 1, 99), number(r, 1, 99)
    return {"a": a, "b": b, "h": h} if (a + b) * h % 2 == 0 else None


def _tiles(r: Random) -> Params:
    t = r.choice((1, 2, 3, 4, 5, 10, 20, 25, 30, 40, 50))
    return {"t": t, "a": t * r.randint(2, 60), "b": t * r.randint(2, 60)}


def _box(r: Random) -> Params:
    return {"a": r.randint(1, 50), "b": r.randint(1, 50), "c": r.randint(1, 40)}


FAMILIES = (
    family(
        "rectangle_area",
        _two,
        [
            "[What is|Find|Compute|Calculate] the area of a rectangle with [sides|side lengths] {a} and {b}[?|.]",
            "A rectangle [is|measures] {a} {length} [by|times] {b} {length}. [What is its area|Find the area|How big is its area]?",
            "[A room|A garden|A field|A rectangle|A carpet] is {a} {length} long and {b} {length} wide. [What is its area|How large is its area|How many square {length} is that]?",
            "The length of a rectangle is {a} and its width is {b}. <find> its area.",
            "[How many unit squares|How many square tiles of side 1] [fit into|cover] a {a} by {b} rectangle?",
            "A rectangular lawn has sides {a} {length} and {b} {length}. What area must be mown?",
        ],
        ["Area = {a} * {b}.", "Length times width: {a} * {b}."],
        ["print({a} * {b})"],
    ),
    family(
        "rectangle_perimeter",
        _two,
        [
            "[What is|Find|Compute] the perimeter of a rectangle with [sides|side lengths] {a} and {b}[?|.]",
            "A rectangle [is|measures] {a} {length} [by|times] {b} {length}. [What is its perimeter|Find the perimeter|How long is its boundary]?",
            "[A garden|A field|A yard] is {a} {length} long and {b} {length} wide. [How long is the fence around it|How much fence is needed around it|What is its perimeter]?",
            "{who} walks [once |]around a rectangular [park|field] of {a} by {b} {length}. How [far does {he} walk|many {length} is that]?",
            "The sides of a rectangle are {a} and {b}. What is the distance around it?",
            "How much ribbon borders a {a} by {b} rectangle?",
        ],
        ["Perimeter = 2 * ({a} + {b}).", "2 * ({a} + {b})."],
        ["print(2 * ({a} + {b}))"],
    ),
    family(
        "side_from_area",
        lambda r: (lambda a, b: {"a": a, "s": a * b})(number(r, 1, 300), number(r, 1, 300)),
        [
            "A rectangle has area {s} and [one side|width|length] {a}. [What is the other side|Find the other side|How long is the other side]?",
            "The area of a rectangle is {s} square {length}. One side is {a} {length}[ long|]. How long is the other[ side|]?",
            "A [field|garden] of {s} square {length} is {a} {length} long. How wide is it?",
            "[Find|What is] the width of a rectangle with length {a} and area {s}[?|.]",
            "What must a rectangle {a} wide measure in the other direction to cover {s} squares?",
        ],
        ["{s} / {a}.", "The other side is {s} / {a}."],
        ["print({s} // {a})"],
    ),
    family(
        "side_from_perimeter",
        lambda r: (lambda a, b: {"a": a, "p": 2 * (a + b)})(number(r, 1, 300), number(r, 1, 300)),
        [
            "The perimeter of a rectangle is {p} and [one side|its length|its width] is {a}. [What is the other side|Find the other side|How long is the other side]?",
            "A rectangle has perimeter {p} {length}; one side is {a} {length}[ long|]. How long is the other[ side|]?",
            "{p} {length} of fence surround a rectangular garden [of length|with one side] {a} {length}. [How wide is it|Find the other side].",
            "[Find|What is] the width of a rectangle with perimeter {p} and length {a}[?|.]",
            "Once around a rectangle is {p}, along one edge {a}. What about the neighboring edge?",
        ],
        ["{p} / 2 - {a}.", "Half of {p} less {a}."],
        ["print({p} // 2 - {a})"],
    ),
    family(
        "square_area",
        lambda r: {"a": number(r, 1, 300)},
        [
            "[What is|Find] the area of a square with side[ length|s of|] {a}[?|.]",
            "A square has [side|sides of|side length] {a} {length}. [What is its area|Find its area]?",
            "[How large is|What is] the area of a {a} by {a} square?",
            "The side of a square is {a}. <find> its area.",
            "How many square {length} does a square of side {a} {length} cover?",
        ],
        ["{a} * {a}.", "The area is {a}**2."],
        ["print({a} * {a})", "print({a}**2)"],
    ),
    family(
        "square_from_perimeter",
        lambda r: {"p": 4 * number(r, 1, 300)},
        [
            "[A square has|The] perimeter [of a square is |]{p}. What is [its area|the area of the square]?",
            "[Find|What is] the area of a square [with|whose] perimeter [is |]{p}[?|.]",
            "A square [garden|field] is surrounded by {p} {length} of fence. [What is its area|How large is it in square {length}]?",
            "A wire of length {p} is bent into a square. [What area does it enclose|Find the enclosed area].",
            "The four sides of a square add up to {p}. How large is the square's area?",
        ],
        ["The side is {p} / 4.", "({p} / 4) squared."],
        ["print(({p} // 4)**2)", "side = {p} // 4\nprint(side * side)"],
    ),
    family(
        "regular_perimeter",
        _perimeter,
        [
            "[What is|Find|Compute] the perimeter of a regular {shape} with side[ length|] {a}[?|.]",
            "A regular {shape} has side length {a}. [What is its perimeter|Find its perimeter].",
            "Each side of a {shape} [is {a} {length} long|measures {a} {length}]. What is the perimeter?",
            "All sides of a {shape} have length {a}. <find> the perimeter.",
            "How far is it around a {shape} if every side is {a} {length}?",
        ],
        ["{n} sides of {a}.", "{n} * {a}."],
        ["print({n} * {a})"],
    ),
    family(
        "triangle_base_height",
        _triangle_area,
        [
            "[What is|Find|Compute] the area of a triangle with base {a} and height {b}[?|.]",
            "A triangle has base {a} {length} and height {b} {length}. [What is its area|Find its area]?",
            "[Find|What is] the area of a right triangle with legs {a} and {b}[?|.]",
            "The legs of a right triangle are {a} and {b}. <find> its area.",
            "A triangular sail is {a} {length} wide at the bottom and {b} {length} high. How many square {length} of cloth is that?",
        ],
        ["{a} * {b} / 2.", "Half of base {a} times height {b}."],
        ["print({a} * {b} // 2)"],
    ),
    family(
        "trapezoid_area",
        _trapezoid,
        [
            "[What is|Find|Compute] the area of a trapezoid with [bases|parallel sides] {a} and {b} and height {h}[?|.]",
            "A trapezoid has parallel sides [of length |]{a} and {b}; its height is {h}. [What is its area|Find the area].",
            "The bases of a trapezoid are {a} {length} and {b} {length}, the height is {h} {length}. <find> its area.",
            "[Find|What is] the area of a trapezium whose parallel sides {a} and {b} are {h} apart[?|.]",
            "Two parallel sides measuring {a} and {b}, {h} apart, bound a trapezoid. How big is it?",
        ],
        ["({a} + {b}) * {h} / 2.", "Mean of {a} and {b} times {h}."],
        ["print(({a} + {b}) * {h} // 2)"],
    ),
    family(
        "hypotenuse",
        _pythagoras,
        [
            "[What is|Find|Compute] the hypotenuse of a right[-angled|] triangle with legs {a} and {b}[?|.]",
            "A right triangle has legs [of length |]{a} and {b}. [How long is the hypotenuse|What is the length of the hypotenuse|Find the longest side].",
            "[How long is|What is the length of] the diagonal of a rectangle with sides {a} and {b}?",
            "{who} walks {a} {length} north and then {b} {length} east. How far is {he} from the start[ in a straight line|]?",
            "A ladder's foot stands {a} feet from a wall and its top touches the wall at height {b} feet. How long is the ladder?",
            "[Compute|What is] $\\sqrt{{a}^2 + {b}^2}$[?|.]",
            "How far apart are opposite corners of a {a} by {b} rectangle?",
        ],
        ["sqrt({a}**2 + {b}**2).", "Pythagoras with {a} and {b}."],
        ["print(math.isqrt({a}**2 + {b}**2))", "print(int(math.hypot({a}, {b})))"],
    ),
    family(
        "missing_leg",
        _pythagoras,
        [
            "A right triangle has hypotenuse {c} and [one leg|a leg of] {a}. [How long is the other leg|Find the other leg|What is the other leg]?",
            "[Find|What is] the other leg of a right triangle with hypotenuse {c} and leg {a}[?|.]",
            "A {c} {length} ladder leans on a wall, its foot {a} {length} from the wall. How high does it reach?",
            "The diagonal of a rectangle is {c} and one side is {a}. [What is the other side|Find the other side].",
            "The longest side of a right-angled triangle is {c}, another is {a}. How long is the third?",
        ],
        ["sqrt({c}**2 - {a}**2).", "Pythagoras: {c} and {a}."],
        ["print(math.isqrt({c}**2 - {a}**2))", "print(round(({c}**2 - {a}**2)**0.5))"],
    ),
    family(
        "third_angle",
        _triangle_angles,
        [
            "Two angles of a triangle are {a} and {b}[ degrees|]. [What is the third|Find the third angle|How big is the third angle]?",
            "[In a triangle|A triangle has] two angles [measure|of] ${a}^\\circ$ and ${b}^\\circ$. [What is|Find] the [third|remaining] angle[ in degrees|]?",
            "[What is|Find] the third angle of a triangle with angles {a} and {b} degrees[?|.]",
            "The angles of a triangle are {a}°, {b}° and $x$°. <find> $x$.",
            "A triangle's first two angles take up {a} and {b} degrees. How many are left for the last one?",
        ],
        ["180 - {a} - {b}.", "The angles sum to 180."],
        ["print(180 - {a} - {b})"],
    ),
    family(
        "angle_complement",
        lambda r: (
            lambda t: {
                "t": t,
                "a": r.randint(1, t - 1),
                "word": {90: "complement", 180: "supplement", 360: "rest of the full turn"}[t],
                "adj": {90: "complementary", 180: "supplementary", 360: "together a full circle"}[
                    t
                ],
            }
        )(r.choice((90, 90, 180, 180, 360))),
        [
            "[What is|Find] the {word} of [an angle of |]{a}[ degrees|°][?|.]",
            "Two angles are {adj}. One [is|measures] {a}[ degrees|°]. [What is the other|Find the other][ in degrees|]?",
            "[Find|What is] the other angle, if two angles are {adj} and one is {a} degrees[?|.]",
            "How many degrees has the {word} of a {a} degree angle?",
            "One of two angles that are {adj} has {a} degrees. And the other?",
        ],
        ["{t} - {a}.", "Together they make {t} degrees."],
        ["print({t} - {a})"],
    ),
    family(
        "polygon_angle_sum",
        _polygon,
        [
            "[What is|Find|Compute] the sum of the [interior |inner |]angles of a {shape}[ in degrees|][?|.]",
            "[What do|How many degrees do] the interior angles of a {shape} add up to?",
            "The angles of a {shape} [have what sum|sum to how many degrees]?",
            "{who} adds all [interior |]angles of a {shape}. [What does {he} get|How many degrees is that]?",
            "Measured inside, how many degrees are there in all the corners of a {shape}?",
        ],
        ["({n} - 2) * 180.", "{n} corners: ({n} - 2) * 180."],
        ["print(({n} - 2) * 180)"],
    ),
    family(
        "regular_interior_angle",
        _regular,
        [
            "[What is|Find|Compute] [the|each] interior angle of a regular {shape}[ in degrees|][?|.]",
            "How many degrees [has|is] each [interior |inner |]angle of a regular {shape}?",
            "[What is the size of|How big is] one angle of a regular {shape}?",
            "All angles of a {shape} are equal. [What is each|Find one of them][ in degrees|]?",
            "A regular {shape} is drawn. What does a protractor show inside a corner?",
        ],
        ["({n} - 2) * 180 / {n}.", "Each of {n} angles."],
        ["print(({n} - 2) * 180 // {n})"],
    ),
    family(
        "diagonals",
        _polygon,
        [
            "How many diagonals does a [convex |regular |]{shape} have?",
            "[What is|Find|Compute] the number of diagonals of a [convex |]{shape}[?|.]",
            "[Count|Find] the diagonals [of|in] a {shape}.",
            "{who} draws all diagonals of a {shape}. How many [lines|of them] does {he} draw?",
            "Joining all pairs of vertices of a {shape} that are not neighbors takes how many segments?",
        ],
        ["{n} * ({n} - 3) / 2.", "Diagonals with {n} corners."],
        ["print({n} * ({n} - 3) // 2)", "print(math.comb({n}, 2) - {n})"],
    ),
    family(
        "box_volume",
        _box,
        [
            "[What is|Find|Compute] the volume of a [box|cuboid|rectangular prism] with [sides|edges|dimensions] {a}, {b} and {c}[?|.]",
            "A [box|cuboid|tank|brick] [is|measures] {a} [by|x] {b} [by|x] {c}[ {length}|]. [What is its volume|Find its volume]?",
            "A [box|container|pool] is {a} {length} long, {b} {length} wide and {c} {length} [high|deep|tall]. [What is the volume|How many cubic {length} is that]?",
            "How many [unit cubes|cubes of side 1] fit into a ${a} \\times {b} \\times {c}$ box?",
            "What space does a crate of length {a}, width {b} and height {c} enclose?",
        ],
        ["{a} * {b} * {c}.", "Volume: {a} * {b} * {c}."],
        ["print({a} * {b} * {c})"],
    ),
    family(
        "box_surface",
        _box,
        [
            "[What is|Find|Compute] the surface area of a [box|cuboid|rectangular prism] with [sides|edges|dimensions] {a}, {b} and {c}[?|.]",
            "A [box|cuboid|brick] [is|measures] {a} [by|x] {b} [by|x] {c}[ {length}|]. [What is its surface area|Find its surface]?",
            "How much paper covers a box of {a} by {b} by {c} {length}[ exactly|, on all six sides]?",
            "The edges of a cuboid are {a}, {b} and {c}. <find> its total surface.",
            "All six faces of a crate of length {a}, width {b} and height {c} are painted. What area is that?",
        ],
        ["2 * ({a}*{b} + {b}*{c} + {a}*{c}).", "Three pairs of faces of {a}, {b}, {c}."],
        ["print(2 * ({a} * {b} + {b} * {c} + {a} * {c}))"],
    ),
    family(
        "cube_measures",
        lambda r: (
            lambda k: {
                "a": r.randint(1, 45),
                "what": ("volume", "surface area")[k],
                "code": ("a**3", "6 * a**2")[k],
            }
        )(r.randint(0, 1)),
        [
            "[What is|Find|Compute] the {what} of a cube with [edge|side|edge length|side length] {a}[?|.]",
            "A cube has [edges of|edge length|sides of] {a} {length}. [What is its {what}|Find its {what}].",
            "The edge of a cube is {a}. <find> its {what}.",
            "[How large is|What is] the {what} of a {a} by {a} by {a} cube?",
            "Each edge of a die measures {a} {length}. What {what} does it have?",
        ],
        ["The {what} with a = {a}: {code}.", "{code} for a = {a}."],
        ["a = {a}\nprint({code})", "a = {a}\nresult = {code}\nprint(result)"],
    ),
    family(
        "tiles",
        _tiles,
        [
            "[How many|What number of] square tiles of side {t} [are needed to cover|cover|fit on] a [floor|wall|rectangle] of {a} by {b}?",
            "A floor [is|measures] {a} by {b} {length}. How many [square |]tiles of {t} by {t} {length} [are needed|does it take]?",
            "{who} covers a rectangle of {a} by {b} with squares of side {t}. How many [squares |]does {he} need?",
            "How many {t} by {t} squares fit into a {a} by {b} rectangle?",
            "A {a} {length} by {b} {length} patio gets square slabs {t} {length} wide. How many slabs?",
        ],
        ["({a} / {t}) * ({b} / {t}).", "{a} // {t} in one direction, {b} // {t} in the other."],
        ["print(({a} // {t}) * ({b} // {t}))", "print({a} * {b} // {t}**2)"],
    ),
    family(
        "squares_in_grid",
        lambda r: {"a": r.randint(1, 40), "b": r.randint(1, 40)},
        [
            "How many squares [of all sizes |][are there|are|can be found] in a {a} by {b} grid?",
            "[Count|Find the number of] squares of any size [in|on] a ${a} \\times {b}$ [board|grid|chessboard].",
            "A [board|grid] has {a} rows and {b} columns of cells. How many squares [of any size |]does it contain?",
            "[What is the total number of|How many] squares, big and small, [are there |]in a grid of {a} by {b} cells?",
            "Squares of every size are counted on a {a} by {b} checkerboard. What is the count?",
        ],
        ["Sum ({a} - k) * ({b} - k) over k.", "Squares of side k + 1 in {a} by {b}."],
        ["print(sum(({a} - k) * ({b} - k) for k in range(min({a}, {b}))))"],
    ),
)
