"""What surrounds one ``send(batch)``: how an answer is read and what follows from it."""
