"""The models that compete, and their cost in closed form; light to import."""
