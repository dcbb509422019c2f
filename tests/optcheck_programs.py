"""An optimizer that is given as lines of NumPy, so that tests can replace lines with mistakes."""

import numpy as np


class Program:
    """An optimizer of NumPy lines with the arrays m, v, b, s, w and x, which it stores in dicts."""

    def __init__(self, text):
        self.code, self.arrays, self.t = compile(text, "<program>", "exec"), {name: {} for name in "mvbswx"}, 0

    def step(self, params, grads):
        self.t += 1
        for key, g in grads.items():
            values = {name: array.get(key, np.zeros_like(g)) for name, array in self.arrays.items()}
            names = {"np": np, "g": g, "p": params[key], "t": self.t, **values}
            with np.errstate(all="ignore"):
                exec(self.code, names)
            params[key] = names["p"]
            for name, array in self.arrays.items():
                array[key] = names[name]
        return params
