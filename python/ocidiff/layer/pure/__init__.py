"""The pure engine: diff and apply in plain Python, standard library only; oracle and fallback of the fast one."""

from ocidiff.layer.pure.engine import PureEngine

__all__ = ["PureEngine"]
