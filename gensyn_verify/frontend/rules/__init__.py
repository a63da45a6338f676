"""Lowering rules by subject. Which ATen op uses which is written in `gensyn_verify.frontend.lowering.TABLE`.

pointwise    arithmetic, comparisons, activations and their derivatives
linear       matrix products
convolution  forward and both gradients, for any number of spatial axes
pooling      max and average pooling
reductions   sums, means, variances, extremes, softmax
normalization  batch and layer normalization
losses       negative log likelihood, squared error
indexing     embedding, gather, index with tensors
shape        views, joins, cuts, factories
"""
