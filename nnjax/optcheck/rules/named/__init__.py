"""Define rules that are named after their papers, one per file, with their choices, equations and updates."""
