"""Find out how an optimizer is called: its arguments, the layout of its parameters, and what it returns."""
