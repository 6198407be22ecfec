"""What options are made of: their types, where their values come from, what is said of wrong ones.

Knows no option by name; those are in ``fapilog.settings``.
"""
