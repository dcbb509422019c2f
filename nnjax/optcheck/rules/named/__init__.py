"""Update rules that are named after their papers, one per file: choices, equations and updates of each."""
