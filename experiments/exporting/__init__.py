"""The export stage: subnets for budgets, cut out, proved and written down."""
