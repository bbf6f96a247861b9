"""Programs of several cells, which tests run in a kernel."""

from eightfold.sandbox import KernelPool


def check_program(pool: KernelPool, cells: tuple[str, ...], text: str) -> None:
    """Run the cells of a program in a kernel, and check the text of the last one."""
    with pool.lease(timeout=60) as kernel:
        for cell in cells:
            result = kernel.execute(cell)
        assert result.text == text
        assert kernel.execute("6 * 7").text == "42"
