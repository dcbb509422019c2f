"""Report the result of a comparison as text, JSON and a picture, with suggested fixes."""
