"""Scores as a user writes them."""


def begins_alike(target, output):
    return float(target[:3].lower() == output[:3].lower())


def too_high(target, output):
    return 100.0 + len(target) + len(output)


def fails(target, output):
    raise KeyError(target, output)


def of_one(output):
    return float(bool(output))
