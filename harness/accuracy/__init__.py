"""How good a model is: training to accuracy, and evaluation on held-out samples."""
