"""Update rules named after their papers, one per file, each with its choices, equations and updates."""
