"""Owns affine maps between pixel planes, in outer-corner coordinates: pixel i covers [i, i + 1)."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """x' = xx x + xy y + x0; y' = yx x + yy y + y0. x runs to the right, y down."""

    xx: float
    xy: float
    x0: float
    yx: float
    yy: float
    y0: float

    @classmethod
    def scaling(cls, x: float, y: float, *, x0: float = 0.0, y0: float = 0.0) -> Self:
        """Build the axis-aligned map x' = x * x + x0, y' = y * y + y0."""
        return cls(xx=x, xy=0.0, x0=x0, yx=0.0, yy=y, y0=y0)

    @property
    def is_axis_aligned(self) -> bool:
        """Neither axis depends on the other."""
        return self.xy == 0 and self.yx == 0

    def apply(self, x: float, y: float) -> tuple[float, float]:
        """Map one point."""
        return self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0

    def after(self, first: "Affine") -> "Affine":
        """Compose: the result maps a point by `first`, then by this."""
        x0, y0 = self.apply(first.x0, first.y0)
        return Affine(
            xx=self.xx * first.xx + self.xy * first.yx,
            xy=self.xx * first.xy + self.xy * first.yy,
            x0=x0,
            yx=self.yx * first.xx + self.yy * first.yx,
            yy=self.yx * first.xy + self.yy * first.yy,
            y0=y0,
        )

    def inverse(self) -> "Affine":
        """Undo this map.

        Raises:
            ValueError: the map flattens the plane.
        """
        determinant = self.xx * self.yy - self.xy * self.yx
        if determinant == 0:
            raise ValueError("an affine map with determinant 0 has no inverse")
        xx, xy = self.yy / determinant, -self.xy / determinant
        yx, yy = -self.yx / determinant, self.xx / determinant
        return Affine(xx=xx, xy=xy, x0=-(xx * self.x0 + xy * self.y0), yx=yx, yy=yy, y0=-(yx * self.x0 + yy * self.y0))
