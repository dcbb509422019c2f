"""Find out how to call an optimizer: its arguments, the layout of its parameters, and its return value."""
