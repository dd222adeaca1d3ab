"""The 8-bit forms of a tensor: which numbers they hold, and how a tensor is brought to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

Form = Literal["int8", "fp8"]


@dataclass(frozen=True)
class Grid:
    """Symmetric numbers around zero; real numbers are these times a scale.

    Attributes:
        form: its name.
        largest: the largest number.
        type_name: the ONNX type that stores them.
    """

    form: Form
    largest: float
    type_name: str

    def scale(self, threshold: np.ndarray | float, dtype: np.dtype | type = np.float32) -> np.ndarray:
        """The scale that puts `threshold` on the largest number, in the type in which the graph holds it.

        Never zero, which nothing can be divided by: 1 where there is nothing but zeros.
        """
        threshold = np.asarray(threshold, np.float32)
        scale = np.where(threshold > 0, threshold / np.float32(self.largest), np.float32(1))
        return np.maximum(scale.astype(dtype), np.finfo(dtype).smallest_normal)

    def codes(self, values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """`values` / `scale` on the grid, to the nearest with ties to even, saturated.

        As QuantizeLinear does, but that one goes to −128 where this ends at −127.

        Returns:
            int8, or float8 in the type of ml_dtypes.
        """
        scaled = np.clip(np.asarray(values, np.float32) / scale, -self.largest, self.largest)
        return np.rint(scaled).astype(np.int8) if self.form == "int8" else scaled.astype(self.ir_type.numpy())

    def rounded(self, values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        """What is left of `values` after going to the grid and back, float32."""
        return self.codes(values, scale).astype(np.float32) * np.asarray(scale, np.float32)

    @property
    def ir_type(self) -> ir.DataType:
        import onnx_ir as ir

        return ir.DataType[self.type_name]


# −128 stays unused: TensorRT wants no zero point, and a grid as long on both sides loses 1/256 of its length.
GRIDS: dict[Form, Grid] = {"int8": Grid("int8", 127, "INT8"), "fp8": Grid("fp8", 448, "FLOAT8E4M3FN")}
