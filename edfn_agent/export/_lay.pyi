import numpy as np
from numpy.typing import NDArray

def lay_out(
    out: NDArray[np.uint8],
    stride: int,
    order: NDArray[np.int64],
    columns: list[tuple[NDArray[np.uint8], int, int, int]],
) -> None: ...
