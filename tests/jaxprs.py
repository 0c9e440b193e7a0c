"""What a traced program computes."""


def equations(jaxpr, depth=0):
    """Every equation of a jaxpr with the number of loops around it."""
    for equation in jaxpr.eqns:
        yield equation, depth
        inside = depth + (equation.primitive.name in ("scan", "while"))
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else [parameter]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, inside)
