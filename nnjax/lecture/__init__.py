"""Show the ideas of the lecture notes "Intro to Deep Learning" as a tour, one per file.

Each file states the idea in three sentences and has two functions: `run` computes it with
the library, and `draw` draws the result. `nnjax lecture` prints the tour and writes a page.
"""

from nnjax.lecture import (
    adam,
    back_propagation,
    batch_norm,
    dot_product,
    dropout,
    ensembles,
    forward_pass,
    gradient_descent,
    matrix_vector_product,
    mini_batches,
    momentum,
    perceptron,
    rmsprop,
    skip_connections,
    softmax,
    squared_error,
    summary,
    universal_approximation,
    why_relu,
    xor,
)
from nnjax.lecture.idea import Idea, read_idea

__all__ = ["IDEAS", "PARTS"]

PARTS: dict[str, list[Idea]] = {
    part: [read_idea(module) for module in modules]
    for part, modules in {
        "From numbers to networks": (
            dot_product,
            matrix_vector_product,
            perceptron,
            xor,
            forward_pass,
        ),
        "How wrong?": (softmax, squared_error),
        "Learning": (gradient_descent, mini_batches, back_propagation),
        "Better steps": (momentum, rmsprop, adam),
        "Better networks": (batch_norm, ensembles, dropout, skip_connections),
        "What networks can do": (why_relu, universal_approximation, summary),
    }.items()
}
IDEAS: dict[str, Idea] = {idea.name: idea for ideas in PARTS.values() for idea in ideas}
