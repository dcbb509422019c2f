"""The result of a comparison as text, JSON, picture and suggested changes."""
