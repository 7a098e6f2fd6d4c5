"""Every error the service raises on purpose, caught by the kind that decides the action.

    ConsumerError
    ├── ConfigError       a setting, a bundle or a topic is wrong: exit 1 before anything starts
    ├── DeliveryError     a record could not be handed to the broker: drop the partition's work, seek back
    ├── ViewError         the view cannot be used as it is (evicting policy, other topic): it stops, the rest goes on
    └── FatalError        fenced, authorisation lost, a dead thread: exit 3, whoever runs the service starts it again
        └── SickModelError    the model cannot answer anything any more: no listing is to blame

Each message is one sentence: what is wrong, where, and what to do. Imports nothing.
"""


class ConsumerError(Exception):
    """Root of the tree."""


class ConfigError(ConsumerError):
    """What was asked for cannot be run as it is set."""


class DeliveryError(ConsumerError):
    """The broker did not take a record."""


class ViewError(ConsumerError):
    """The view refuses to be written."""


class FatalError(ConsumerError):
    """The process cannot keep its promises any longer and must be started again."""


class SickModelError(FatalError):
    """The model, or the device it runs on, is broken for good."""
