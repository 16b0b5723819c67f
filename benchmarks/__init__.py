"""Commands outside the package that measure it beside its peers and its earlier versions."""
