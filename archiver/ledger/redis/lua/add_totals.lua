-- Alternating names and amounts.
add_totals()
