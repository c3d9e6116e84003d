"""Programs of their own, for processes that import nothing of ours."""
