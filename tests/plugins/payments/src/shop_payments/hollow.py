"""What calls itself a node and is none."""


class KIND:
    name = "payments.hollow"
    summary = ""
