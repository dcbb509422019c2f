"""Define the update rules of libraries and papers, with choices, hyper-parameters, equations and updates."""
