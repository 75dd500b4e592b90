from .verdict import Outcome


def case(rng, folder):
    return Outcome("right", "", "")
