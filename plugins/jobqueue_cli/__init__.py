"""The operator's command ``jobqueue``. Other plugins add commands to it by the hook ``jobqueue_commands``."""
