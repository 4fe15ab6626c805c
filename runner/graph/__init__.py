"""A pipeline and a catalog become a checked graph."""

from runner.graph.build import Parts, build_graph
from runner.graph.shapes import Graph, GraphStep

__all__ = ["Graph", "GraphStep", "Parts", "build_graph"]
