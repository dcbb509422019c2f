"""The jobs that peers do: definitions, common inputs, and float64 results to check them against."""
