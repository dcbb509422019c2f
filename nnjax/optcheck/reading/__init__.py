"""Read the equations of an optimizer from its updates and the arrays that it stores."""
