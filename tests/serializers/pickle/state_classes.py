"""The classes of a backend such as Moto's EC2, for state.py."""


class Backend:
    pass


class Instance:
    pass


class Volume:
    pass


class SecurityGroup:
    pass
