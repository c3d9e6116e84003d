"""Reports: one page that shows what runs left in their directories, finished or going."""

from experiments.reporting.page import write_page, write_report

__all__ = ["write_page", "write_report"]
