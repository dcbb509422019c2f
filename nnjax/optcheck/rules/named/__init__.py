"""Update rules that are named after their papers, one a file: choices, equations and updates of each."""
