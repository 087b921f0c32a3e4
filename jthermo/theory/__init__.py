"""The paper's equations, as printed and as corrected, and the simulations that decide between them."""
