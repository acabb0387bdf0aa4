"""The built-in shapes data, the check of a data set before training, pictures of predictions."""
