"""The part that runs inside: the zygote, its children and their lockdown. It needs the standard library alone."""
