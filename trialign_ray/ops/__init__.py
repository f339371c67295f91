"""The mathematics as pure functions: tensors and numbers in, tensors out."""
