"""Update rules of libraries and papers: their choices, hyper-parameters, equations and updates."""
