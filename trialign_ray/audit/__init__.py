"""The audit: before any training, which groups are told fewer truths, and how sure is that."""
