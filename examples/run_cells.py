"""Use the sandbox alone: Jupyter kernels that are ready at once and survive hostile cells.

Run it with `python examples/run_cells.py`.
"""

from eightfold.sandbox import KernelPool, PoolConfig

CELLS = (
    "x = sum(range(101))\nx",
    "print(sympy.factorint(5050))",  # the libraries are imported beforehand
    "1 / 0",
    "while True: pass",  # ends at the time limit; the variables stay
    "x + 1",
    "import os; os.kill(os.getpid(), 9)",  # the next cell gets a fresh process
    "'x' in globals()",
)


def main() -> None:
    with KernelPool(PoolConfig(size=2)) as pool, pool.lease() as kernel:
        for code in CELLS:
            done = kernel.execute(code, timeout=2.0)
            print(f">>> {code}\n[{done.status}, {done.seconds:.2f} s] {done.text}\n")


if __name__ == "__main__":
    main()
