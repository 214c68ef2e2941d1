"""Which optional parts of the program are installed: the page leaves out what is not."""

from importlib.util import find_spec


def there(module: str) -> bool:
    """Whether `instantid_demo.MODULE` can be imported; imports nothing of it but the packages around it."""
    try:
        return find_spec(f"instantid_demo.{module}") is not None
    except ModuleNotFoundError:
        return False
