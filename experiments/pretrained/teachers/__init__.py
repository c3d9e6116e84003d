"""Teachers of relations: imported networks whose last layer is imitated, a file for each type of model."""
