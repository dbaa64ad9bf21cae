"""Made-up patches of tissue, in a folder laid out like Kaggle's."""
