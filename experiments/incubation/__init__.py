"""The start of a training whose modules are trained one by one, in turn or on Ray workers."""
