"""What every room may use: names, units, files that are replaced whole, and the terminal. No torch here."""
