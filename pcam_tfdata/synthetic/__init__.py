"""Made-up patches of tissue.

In: numbers of patches, and a seed. Out: a folder laid out like Kaggle's, with the
true share of tumor beside it.
"""
