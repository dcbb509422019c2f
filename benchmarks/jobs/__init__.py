"""The jobs that peers do: their definitions, the inputs they start from, and the float64 results that check them."""
